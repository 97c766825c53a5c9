#!/usr/bin/env bash
# One node with 8 GPUs of 80 GB: Ray is started by the run itself, and ends with it.
#     bash examples/cluster/one_node.sh qwen3_8b logic_kk rlcsd [key=value …]
set -euo pipefail
model=$1 task=$2 method=$3
shift 3
case $model in
    qwen3_1p7b) sizes=() ;;
    qwen3_4b) sizes=(engine.offload=optimizer) ;;
    *) sizes=(engine.offload=all engine.rollout_memory=0.8) ;;
esac
exec rlcsd train model="$model" task="$task" method="$method" engine=verl engine.gpus_per_node=8 "${sizes[@]}" "$@"
