# One line per run: every number that the report's tables take from it. A measure that a run lacks stays away.
# Read with --slurpfile geometry, refusals, skills, metrics, pair; --arg run.
def mean: if length == 0 then empty else add / length end;
($run | capture("^(?<arm>.*)-(?<share>[^-]*)-seed-(?<seed>.*)$")) as $name
| ($refusals | map(select(.type == "refusal_report" and .kind == "all"))) as $rates
| ($geometry | map(select(.type == "stack" and .group == ""))[0]) as $stack
| ($geometry | map(select(.type == "compare" and (has("layer_index") | not)))) as $compare
| ($metrics | map(select(.type == "metric"))) as $steps
| {run: $run, arm: $name.arm, share: $name.share, seed: $name.seed,
   loss: ($steps[-20:] | map(.loss) | mean), window_c_k: ($steps[-20:] | map(.aux.vcl.c_k) | mean),
   k: $steps[-1].aux.vcl.k, gamma: $steps[-1].aux.vcl.gamma, sign: $steps[-1].aux.vcl.sign,
   stack_c_k: $stack.c_k["4"],
   alignment: ($compare | map(select(.component == "1"))[0].alignment), alignment_id: $compare[0].alignment_id,
   benches: ($rates | group_by(.bench) | map({key: .[0].bench, value: {
       false_refusal: (map(select(.label == "all"))[0].false_refusal),
       false_refusal_low: (map(select(.label == "all"))[0].false_refusal_low),
       false_refusal_high: (map(select(.label == "all"))[0].false_refusal_high),
       safe: (map(select(.label == "safe"))[0].refusal_rate_any), unsafe: (map(select(.label == "unsafe"))[0].refusal_rate_any)}})
     | from_entries),
   skills: ($skills | map(select(.type == "skill_report" and .task == "")) | group_by(.bench)
     | map({key: .[0].bench, value: (max_by(.accuracy_all) | {accuracy: .accuracy_all, count})}) | from_entries),
   pair: ($pair | map(select(.type == "refusal_pair"))[0] | if . then {delta, delta_low, delta_high, mcnemar_p} else null end)}
| .pair |= (. // empty)
