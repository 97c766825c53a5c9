#!/usr/bin/env bash
#SBATCH --job-name=rlcsd
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --signal=B:TERM@600
# Several nodes under Slurm: Ray's head on the first, a worker on each other node, and the run on the first.
#     sbatch examples/cluster/slurm.sh model=qwen3_8b task=logic_kk method=rlcsd run_name=first
# output_dir and the models must be on a file system that all nodes share. Ten minutes before the time is over Slurm sends
# SIGTERM: the run finishes its step, saves, and `rlcsd train --resume RUN` goes on, on any number of nodes.
set -euo pipefail
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):6379
start() { srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" ray start --block --num-gpus=8 "${@:2}" & }
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

start "$head" --head --port=6379
sleep 20
for node in "${nodes[@]:1}"; do start "$node" --address="$address"; done
sleep 20

if [ "${1:-}" = --resume ]; then train=("$@" "engine.ray_address=$address" "engine.nodes=$SLURM_JOB_NUM_NODES")
else train=("$@" engine=verl "engine.ray_address=$address" "engine.nodes=$SLURM_JOB_NUM_NODES" engine.gpus_per_node=8); fi
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" rlcsd train "${train[@]}" &
run=$!
trap 'kill -TERM $run; wait $run || true; kill $(jobs -p) 2>/dev/null || true' TERM
wait $run
