#!/usr/bin/env bash
# The plug-in table for Qwen3-4B: {opsd, rlsd, rlcsd} x {the data set's solution, an own correct rollout, own rollouts + contrast}.
# A run that was broken off goes on from its last checkpoint, a finished one is passed over:
#     examples/plugin_qwen3_4b.sh TASK [OUT] [more overrides]      for example   examples/plugin_qwen3_4b.sh logic_kk runs/plugin model.lora.rank=64
set -euo pipefail
task=${1:?the task: logic_kk or math_deepmath}; out=${2:-runs/plugin}; shift $(($# > 2 ? 2 : $#))

train() { # NAME OVERRIDES...
    local name=$1; shift
    if [ -f "$out/$name/report.md" ]; then return; fi
    if [ -f "$out/$name/config.yaml" ]; then rlcsd train --resume "$out/$name"; return; fi
    rlcsd train model=qwen3_4b task="$task" kl_coefficient=0 output_dir="$out" run_name="$name" "$@"
}

train opsd-solution   method=opsd "$@"
train opsd-rollout    method=opsd method.hint_source=own_rollout "$@"
train opsd-contrast   method=opsd_ectr "$@"
train rlsd-solution   method=rlsd "$@"
train rlsd-rollout    method=rlsd method.hint_source=own_rollout "$@"
train rlsd-contrast   method=rlsd_ectr "$@"
train rlcsd-solution  method=rlcsd_extended method.evidence=one_sided method.hint_source=gt_cot "$@"
train rlcsd-rollout   method=rlcsd_extended method.evidence=one_sided "$@"
train rlcsd-contrast  method=rlcsd "$@"

rlcsd compare "$out"/*/ --by method.name method.hint_source method.evidence --figure "$out/plugin.png"
