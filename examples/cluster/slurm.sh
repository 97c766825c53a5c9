#!/usr/bin/env bash
#SBATCH --job-name=rlcsd
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --signal=B:TERM@1800
# Several nodes under Slurm: Ray's head node on the first, a worker node on each other one, and the run on the first.
#     sbatch examples/cluster/slurm.sh model=qwen3_8b task=logic_kk method=rlcsd run_name=first
# output_dir and the models must be on a file system that all nodes share. Half an hour before the time limit Slurm sends
# SIGTERM: the run finishes its step and saves. Set the @seconds above to more than two steps and a checkpoint (about 10
# bytes per parameter, 80 GB for 8B). `rlcsd train --resume RUN` then goes on, on any number of nodes.
# Logs of workers and rollout servers: /tmp/ray/session_latest/logs on each node.
set -euo pipefail
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}  # srun does not inherit --cpus-per-task since Slurm 22.05
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):6379
start() { srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" ray start --block --num-gpus=8 "${@:2}" & }
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

start "$head" --head --port=6379
until timeout 20 ray status --address="$address" > /dev/null 2>&1; do
    if [ "$SECONDS" -gt 300 ]; then echo "Ray's head node on $head did not start within 300 seconds" >&2; exit 1; fi
    sleep 2
done
for node in "${nodes[@]:1}"; do start "$node" --address="$address"; done  # the run waits for them

if [ "${1:-}" = --resume ]; then train=("$@" "engine.ray_address=$address" "engine.nodes=$SLURM_JOB_NUM_NODES")
else train=("$@" engine=verl "engine.ray_address=$address" "engine.nodes=$SLURM_JOB_NUM_NODES" engine.gpus_per_node=8); fi
rlcsd train "${train[@]}" &  # this script is on the first node; srun would end the run at SIGTERM, without a checkpoint
run=$!
trap 'kill -TERM $run; wait $run || true; kill $(jobs -p) 2>/dev/null || true' TERM
wait $run
