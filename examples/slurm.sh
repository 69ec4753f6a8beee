#!/bin/bash
# The whole method on a Slurm cluster: Ray over all nodes generates, scores and evaluates, Accelerate trains.
#
#     sbatch examples/slurm.sh          # after setting `recipe` and `run` below
#
# Two minutes before the time is up, and when somebody scancels it gently, the job stops after the batch in flight and
# is queued again; it goes on where it stopped. One node needs no change but --nodes=1.
#SBATCH --job-name=tokenskip
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
recipe=mine.yaml     # this, the model, the problems and the run folder lie where every node sees them
run=runs/mine
export OMP_NUM_THREADS=8
nodes=$SLURM_NNODES
workers=$((nodes * SLURM_GPUS_ON_NODE))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

child=
trap 'kill -TERM "$child" 2>/dev/null; wait "$child"; scontrol requeue "$SLURM_JOB_ID"; exit' TERM
step() {  # in the background, since bash runs a trap only between commands
    "$@" &
    child=$!
    wait "$child"
}

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --port=6379 --block &
if [ "$nodes" -gt 1 ]; then
    srun --overlap --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --exclude="$head" \
        ray start --address="$head:6379" --block &
fi
until python -c "import ray, sys; ray.init('$head:6379'); sys.exit(ray.cluster_resources().get('GPU', 0) < $workers)"; do
    sleep 5
done

step tokenskip generate "$run" --recipe "$recipe" --set engine=ray --set engine.address="$head:6379" \
    --set engine.workers="$workers" --set engine.gpus_per_worker=1
step tokenskip grade "$run"     # the folder remembers the engine
step tokenskip score "$run"
step tokenskip prune "$run"
# the launcher's processes have to stop together: they resume from the last checkpoint
step srun --overlap --nodes="$nodes" --ntasks-per-node=1 bash -c "accelerate launch --num_machines $nodes \
    --num_processes $workers --machine_rank \$SLURM_PROCID --main_process_ip $head --main_process_port 29500 \
    -m tokenskip train $run"
step tokenskip evaluate "$run"
step tokenskip report "$run"
