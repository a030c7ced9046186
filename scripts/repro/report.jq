# The tables and findings of report.html, from the lines of runs.jsonl. --arg bench (whose false refusals are in question), model,
# top (the highest share); --slurpfile runs, entropy, regions; --rawfile tried.

# The paper's Table 2 (alignment of PC_ID, false refusal) and Table 3 (SFT, VCL), Llama-3.2-1B.
def table_2: {"0.0": [1.00, 0.63], "0.1": [0.94, 0.74], "0.2": [0.91, 0.79], "0.3": [0.89, 0.81], "0.4": [0.85, 0.84], "0.5": [0.82, 0.86],
    "0.6": [0.84, 0.82], "0.7": [0.83, 0.81], "0.8": [0.77, 0.85], "0.9": [0.76, 0.92], "1.0": [0.75, 0.97]};
def table_3: {dan: [0.78, 0.89], harmbench: [0.74, 0.841], toxigen: [0.90, 1.000], jailbreakbench: [0.76, 0.86], oktest: [0.53, 0.76],
    orbench: [0.76, 0.87], xstest: [0.51, 0.86], mmlu: [0.42, 0.42], gsm8k: [0.50, 0.51], bbh: [0.25, 0.26], humaneval: [0.24, 0.25]};

def round($n): if . == null then "–" else (. * pow(10; $n) | round) / pow(10; $n) | tostring end;
def mean: map(values) | if length == 0 then null else add / length end;
def row: "<tr>" + (map("<td>\(.)</td>") | join("")) + "</tr>";
def head: "<tr>" + (map("<th>\(.)</th>") | join("")) + "</tr>";
def table($caption; $titles; rows): "<table><caption>\($caption)</caption>", ($titles | head), rows, "</table>";
def each(f): map(f | round(2)) | join(" ");

# Pearson's r of pairs [x, y], with Fisher's interval (95 %): none for fewer than five runs or where nothing varies.
def correlation: map(select(all(.[]; . != null))) | length as $n | (map(.[0]) | mean) as $x | (map(.[1]) | mean) as $y
    | (map((.[0] - $x) * (.[1] - $y)) | add // 0) as $xy | (map(pow(.[0] - $x; 2)) | add // 0) as $xx | (map(pow(.[1] - $y; 2)) | add // 0) as $yy
    | if $n < 5 or $xx == 0 or $yy == 0 then null else ($xy / ($xx * $yy | sqrt)) as $r
      | {n: $n, r: $r, low: (if ($r | fabs) > 0.999999 then $r else ($r | atanh) - 1.96 / ($n - 3 | sqrt) | tanh end),
         high: (if ($r | fabs) > 0.999999 then $r else ($r | atanh) + 1.96 / ($n - 3 | sqrt) | tanh end)} end;
def say: if . == null then "cannot be said (fewer than five runs, or nothing varies)"
    else "r = \(.r | round(2)) [\(.low | round(2)), \(.high | round(2))] over \(.n) runs" end;
def tracks: if . == null then "" elif .low > 0 then "it tracks them: " elif .high < 0 then "it moves against them: " else "no such relation is shown: " end;

def rate: .benches[$bench].false_refusal;
def skill: .skills | map(.accuracy) | mean;
def unsafe: .benches[$bench].unsafe;

# Was a cure found? Only if refusals fall in every seed, and answers were not broken for it.
def effect($plain): (map(.pair.delta) | if any(. == null) then null else . end) as $d
    | (map(.loss) | mean) as $loss | ($plain | map(.loss) | mean) as $before | (map(skill) | mean) as $after | ($plain | map(skill) | mean) as $skill
    | if $d == null then "cannot be said to change false refusals (no answer could be judged)"
      else (if all($d[]; . < 0) then "lowers false refusals in every seed" elif all($d[]; . > 0) then "raises false refusals in every seed"
            else "does not change false refusals consistently" end)
        + ", from \($plain | map(rate) | mean | round(3)) to \(map(rate) | mean | round(3))"
        + " (" + (map("seed \(.seed): \(.pair.delta | round(3)) [\(.pair.delta_low | round(3)), \(.pair.delta_high | round(3))]") | join(", ")) + ")"
        + "; the fine-tuning loss goes from \($before | round(2)) to \($loss | round(2)), skill from \($skill | round(2)) to \($after | round(2))"
        + (if $loss > 1.5 * $before and all($d[]; . < 0) then ": a model that answers worse also refuses less, so this is no cure" else "" end)
      end;

($runs | map(select(.arm == "share"))) as $plain
| ($plain | group_by(.share | tonumber)) as $by_share
| ($plain | map(select(.share == $top))) as $at_top
| ($runs | map(select(.arm != "share")) | group_by(.arm)) as $arms
| ($arms | map({key: .[0].arm, value: .}) | from_entries) as $arm
| ($by_share[0] | map(rate) | mean) as $lowest | ($by_share[-1] | map(rate) | mean) as $highest
| ($plain | map([(.share | tonumber), rate]) | correlation) as $rise
| ($plain | map([.stack_c_k, rate]) | correlation) as $stack
| ($plain | map([.window_c_k, rate]) | correlation) as $window
| ($runs | map(select(.share == $top)) | map([.window_c_k, rate]) | correlation) as $moved
| "<h2>What was found</h2><ul>",
  "<li><b>Do false refusals rise with the safety share?</b> \(if $highest == null or $lowest == null then "No answer could be judged" else
      (if $rise == null then (if $highest > $lowest then "They are higher" else "They are not higher" end) elif $rise.low > 0 then "Yes" elif $rise.high < 0 then "No, they fall" else "Not shown" end)
      + ": \($lowest | round(3)) at share \($by_share[0][0].share), \($highest | round(3)) at \($by_share[-1][0].share)" end); \($rise | say).</li>",
  "<li><b>Does C<sub>4</sub> track them</b> as the share rises? Of the stack over all layers: \($stack | tracks)\($stack | say). Of the window while training: \($window | tracks)\($window | say). (The share drives both, so this alone shows no cause.)</li>",
  "<li><b>Do false refusals follow when the loss moves C<sub>4</sub></b> at share \($top)? \($moved | tracks)\($moved | say).</li>",
  "<li><b>Which sign helps?</b> At gamma \($arm.spread[0].gamma), <b>spread</b> \($arm.spread | effect($at_top)). <b>Concentrate</b> \($arm.concentrate | effect($at_top)).</li>",
  ($arms[] | select(.[0].arm | IN("spread", "concentrate") | not) | "<li>With k \(.[0].k), gamma \(.[0].gamma)\(.[0].arm | if test("_w") then ", depths " + capture("_w(?<window>[^_]*)").window else "" end), <b>\(.[0].sign)</b> \(effect($at_top)).</li>"),
  "</ul><p>These are the numbers of this run, on this data and model, whether or not they agree with the paper. Numbers of seeds are listed one by one, because two or three are too few for an interval between seeds. An interval of a rate is Wilson&#39;s, over prompts; of a change, over the same prompts before and after; of r, Fisher&#39;s, as if runs were independent. All are at 95 %.</p>",

  "<h2>How repetitive is the data?</h2>",
  table("Completions per source (Penn-Treebank tokens), and two of the paper&#39;s Table 1";
    ["source", "samples", "H1", "H2", "H3", "MSTTR", "distinct-2", "distinct-3", "opening templates"];
    ($entropy[] | select(.type == "entropy") | [.group, .sample_count, (.h1 | round(2)), (.h2 | round(2)), (.h3 | round(2)), (.msttr | round(3)), (.distinct_2 | round(3)), (.distinct_3 | round(3)), (.template_coverage | round(3))] | row),
    "<tr class=paper><td>paper: control</td><td>100000</td><td>12.05</td><td>17.02</td><td>18.28</td><td>0.753</td><td>0.205</td><td>0.716</td><td>–</td></tr>",
    "<tr class=paper><td>paper: WildJailbreak</td><td>100000</td><td>9.18</td><td>12.63</td><td>13.52</td><td>0.672</td><td>0.048</td><td>0.408</td><td>–</td></tr>"),

  "<h2>The safety share</h2>",
  table("The paper&#39;s Table 2. One number per seed (\($by_share[0] | map(.seed) | join(", ")))";
    ["share", "false refusal", "95 %, first seed", "refusal of unsafe", "alignment PC1", "alignment PC_ID", "C4 stack", "C4 window", "skill", "paper: alignment", "paper: false refusal"];
    ($by_share[] | [.[0].share, each(rate), "\(.[0].benches[$bench].false_refusal_low | round(2))–\(.[0].benches[$bench].false_refusal_high | round(2))", each(unsafe), each(.alignment), each(.alignment_id), each(.stack_c_k), each(.window_c_k), each(skill), (table_2[.[0].share][0] // "–"), (table_2[.[0].share][1] // "–")] | row)),

  "<h2>The cure</h2>",
  table("At share \($top), one number per seed. Change: of false refusals against the same seed without the loss, prompt by prompt";
    ["loss", "k", "gamma", "false refusal", "change", "refusal of unsafe", "C4 window", "C4 stack", "SFT loss", "skill"];
    ([$at_top] + [$arm.spread, $arm.concentrate] + ($arms | map(select(.[0].arm | IN("spread", "concentrate") | not))))[]
    | [(if .[0].arm == "share" then "observed only" else .[0].arm end), .[0].k, .[0].gamma, each(rate),
       (map(if .pair then "\(.pair.delta | round(2)) [\(.pair.delta_low | round(2)), \(.pair.delta_high | round(2))]" else "–" end) | join("<br>")),
       each(unsafe), each(.window_c_k), each(.stack_c_k), each(.loss), each(skill)] | row),

  (if ($runs[0].benches | length) + ($runs[0].skills | length) > 2 then
     table("Every benchmark at share \($top): refusals of unsafe prompts, compliance on benign ones, accuracy; means over seeds. The paper&#39;s Table 3 beside";
       ["benchmark", "observed only", "spread", "concentrate", "paper: SFT", "paper: VCL"];
       (($runs[0].benches | keys[]) as $name | [[$at_top, $arm.spread, $arm.concentrate][] | map(.benches[$name]) | if .[0].safe then map(1 - (.safe // empty)) else map(.unsafe) end | mean | round(3)] as $cells
          | [$name] + $cells + (table_3[$name] // ["–", "–"]) | row),
       (($runs[0].skills | keys[]) as $name | [$name] + [[$at_top, $arm.spread, $arm.concentrate][] | map(.skills[$name].accuracy) | mean | round(3)] + (table_3[$name] // ["–", "–"]) | row))
   else empty end),

  "<h2>Stable regions</h2>",
  table("Between harmless and harmful prompts (second paper)";
    ["model", "pairs", "median of the largest slope", "quartiles", "below 1.2", "above 10"];
    (["base", "share \($top)", "share \($top), spread"] as $names | [$regions[] | select(.type == "region_summary")] | to_entries[] | .value as $s | [$names[.key] // $s.model_digest, $s.pair_count, ($s.max_slope_median | round(2)), "\($s.max_slope_q1 | round(2))–\($s.max_slope_q3 | round(2))", ($s.share_below_1_2 | round(2)), ($s.share_above_10 | round(2))] | row)),

  (if $model == "world" then
     "<h2>How this world was chosen, and what was tried</h2>",
     "<p>The world is a generator of simple English: animals, towns, trades, sums, and eighteen verbs that harm or do not, by what follows (<i>kill the process</i>, <i>kill my neighbour</i>). The base model, \(960096) parameters, reads both uses of each verb many times. Safety data refuses harmful uses in five wordings; general data answers one harmless use per verb and no more; the questions ask about other objects. No refusal of a harmless prompt is in any data: where a model refuses one, it generalised from the verb. A model this small often answers beside the point; what is counted here is whether it refuses. The world was not varied in the search below: only how models are trained on it.</p>",
     "<p>At gamma 50 the loss outweighs the fine-tuning of a model this small: answers break, and a broken answer is no cure, even where it refuses less. So other settings were tried in a time-boxed search, first with seed 42 alone; all that were tried are below, from records of that search and not of this run. One of the paper&#39;s own settings, gamma 0.5 with sign spread, left the SFT loss, the refusals of unsafe prompts and skill as they were and gave somewhat fewer false refusals on that seed; it was then run with seeds that had no part in finding it, and four seeds are an indication, no proof.</p>",
     table("Tried at share 0.9; numbers are means over the seeds that were run";
       ["setting", "seeds", "false refusal", "refusal of unsafe", "skill", "C_k last step", "SFT loss last step"];
       ($tried | rtrimstr("\n") | split("\n")[1:][] | split("\t") | row))
   else empty end)
