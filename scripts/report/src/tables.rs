//! The tables of the page.

use records::{RegionSlopes, RegionSummary};

use crate::html::{Table, escape, round, within};
use crate::rows::Entropy;
use crate::runs::{Runs, SIGNS, mean};
use crate::summary::{Bench, Run};

/// The paper's Table 2, Llama-3.2-1B: share, alignment of PC_ID, false refusal.
const TABLE_2: [(f64, &str, &str); 11] = [
    (0.0, "1.00", "0.63"),
    (0.1, "0.94", "0.74"),
    (0.2, "0.91", "0.79"),
    (0.3, "0.89", "0.81"),
    (0.4, "0.85", "0.84"),
    (0.5, "0.82", "0.86"),
    (0.6, "0.84", "0.82"),
    (0.7, "0.83", "0.81"),
    (0.8, "0.77", "0.85"),
    (0.9, "0.76", "0.92"),
    (1.0, "0.75", "0.97"),
];

/// The paper's Table 3, Llama-3.2-1B: benchmark, SFT, VCL.
const TABLE_3: [(&str, &str, &str); 11] = [
    ("dan", "0.78", "0.89"),
    ("harmbench", "0.74", "0.841"),
    ("toxigen", "0.90", "1.000"),
    ("jailbreakbench", "0.76", "0.86"),
    ("oktest", "0.53", "0.76"),
    ("orbench", "0.76", "0.87"),
    ("xstest", "0.51", "0.86"),
    ("mmlu", "0.42", "0.42"),
    ("gsm8k", "0.50", "0.51"),
    ("bbh", "0.25", "0.26"),
    ("humaneval", "0.24", "0.25"),
];

pub fn entropy(rows: &[Entropy]) -> String {
    let mut table = Table::new(
        "Completions per source (Penn-Treebank tokens), and two of the paper&#39;s Table 1",
        &[
            "source",
            "samples",
            "H1",
            "H2",
            "H3",
            "MSTTR",
            "distinct-2",
            "distinct-3",
            "opening templates",
        ],
    );
    for row in rows {
        table.row(&[
            escape(&row.group),
            row.sample_count.to_string(),
            round(row.h1, 2),
            round(row.h2, 2),
            round(row.h3, 2),
            round(row.msttr, 3),
            round(row.distinct_2, 3),
            round(row.distinct_3, 3),
            round(row.template_coverage, 3),
        ]);
    }
    table.paper_row(&[
        "paper: control",
        "100000",
        "12.05",
        "17.02",
        "18.28",
        "0.753",
        "0.205",
        "0.716",
        "–",
    ]);
    table.paper_row(&[
        "paper: WildJailbreak",
        "100000",
        "9.18",
        "12.63",
        "13.52",
        "0.672",
        "0.048",
        "0.408",
        "–",
    ]);
    format!("<h2>How repetitive is the data?</h2>\n{}", table.finish())
}

pub fn shares(runs: &Runs) -> String {
    let matched = match runs.matched.is_empty() {
        true => String::new(),
        false => by_share(
            "The same with general answers as long as the safety answers",
            &runs.matched,
            runs,
        ),
    };
    format!(
        "<h2>The safety share</h2>\n{}{matched}",
        by_share("The paper&#39;s Table 2", &runs.shares, runs)
    )
}

fn by_share(title: &str, groups: &[Vec<&Run>], runs: &Runs) -> String {
    let seeds: Vec<String> = groups[0].iter().map(|run| run.settings.seed.to_string()).collect();
    let mut table = Table::new(
        &format!("{title}. One number per seed ({})", seeds.join(", ")),
        &[
            "share",
            "false refusal",
            "95 %, first seed",
            "nonsense",
            "refusal of unsafe",
            "alignment PC1",
            "alignment PC_ID",
            "C4 stack",
            "C4 window",
            "skill",
            "paper: alignment",
            "paper: false refusal",
        ],
    );
    for group in groups {
        let first = group[0].benches.get(runs.bench);
        let share = group[0].settings.share;
        let paper = TABLE_2.iter().find(|(of, ..)| *of == share);
        table.row(&[
            format!("{share:?}"),
            each(group, |run| runs.false_refusal(run)),
            format!(
                "{}–{}",
                round(first.and_then(|bench| bench.false_refusal_low), 2),
                round(first.and_then(|bench| bench.false_refusal_high), 2)
            ),
            each(group, |run| run.benches.get(runs.bench)?.nonsense),
            each(group, |run| run.benches.get(runs.bench)?.harmful),
            each(group, |run| run.alignment),
            each(group, |run| run.alignment_id),
            each(group, |run| run.stack_c_k),
            each(group, |run| run.window_c_k),
            each(group, Run::skill),
            paper.map_or("–", |(_, alignment, _)| *alignment).to_owned(),
            paper.map_or("–", |(.., false_refusal)| *false_refusal).to_owned(),
        ]);
    }
    table.finish()
}

pub fn cure(runs: &Runs) -> String {
    let mut table = Table::new(
        &format!(
            "At share {:?}, one number per seed. Change: of false refusals against the same seed without the loss, prompt by prompt",
            runs.cured_share()
        ),
        &[
            "loss",
            "k",
            "gamma",
            "false refusal",
            "change",
            "nonsense",
            "refusal of unsafe",
            "C4 window",
            "C4 stack",
            "SFT loss",
            "skill",
        ],
    );
    let observed = ("observed only", runs.uncured());
    let arms = runs
        .arms
        .iter()
        .map(|arm| (arm[0].settings.arm.as_str(), arm.as_slice()));
    for (name, group) in std::iter::once(observed).chain(arms) {
        let settings = &group[0].settings;
        let changes: Vec<String> = group.iter().map(|run| change(run.benches.get(runs.bench))).collect();
        table.row(&[
            escape(name),
            settings.k.to_string(),
            settings.gamma.to_string(),
            each(group, |run| runs.false_refusal(run)),
            changes.join("<br>"),
            each(group, |run| run.benches.get(runs.bench)?.nonsense),
            each(group, |run| run.benches.get(runs.bench)?.harmful),
            each(group, |run| run.window_c_k),
            each(group, |run| run.stack_c_k),
            each(group, |run| run.loss),
            each(group, Run::skill),
        ]);
    }
    format!("<h2>The cure</h2>\n{}", table.finish())
}

fn change(bench: Option<&Bench>) -> String {
    let change = bench.and_then(|bench| bench.change.as_ref());
    change.map_or_else(
        || "–".to_owned(),
        |change| within(change.delta, change.delta_low, change.delta_high, 2),
    )
}

/// Where more than one benchmark of refusals and one of skill were asked.
pub fn benchmarks(runs: &Runs) -> String {
    let first = runs.all[0];
    if first.benches.len() + first.skills.len() <= 2 {
        return String::new();
    }
    let mut table = Table::new(
        &format!(
            "Every benchmark at share {:?}: refusals of unsafe prompts, compliance on benign ones, accuracy; means over seeds. The paper&#39;s Table 3 beside",
            runs.cured_share()
        ),
        &[
            "benchmark",
            "observed only",
            "spread",
            "concentrate",
            "paper: SFT",
            "paper: VCL",
        ],
    );
    let groups = [runs.uncured(), runs.arm(SIGNS[0]), runs.arm(SIGNS[1])];
    let mut row = |name: &str, measure: &dyn Fn(&Run) -> Option<f64>| {
        let paper = TABLE_3.iter().find(|(of, ..)| *of == name);
        let [observed, spread, concentrate] = groups.map(|group| round(mean(group, measure), 3));
        let (sft, vcl) = paper.map_or(("–", "–"), |(_, sft, vcl)| (*sft, *vcl));
        table.row(&[
            escape(name),
            observed,
            spread,
            concentrate,
            sft.to_owned(),
            vcl.to_owned(),
        ]);
    };
    for name in first.benches.keys() {
        row(name, &|run| {
            let bench = run.benches.get(name)?;
            let complied = |refused| 1.0 - refused - bench.nonsense.unwrap_or(0.0);
            bench.safe.map(complied).or(bench.harmful)
        });
    }
    for name in first.skills.keys() {
        row(name, &|run| Some(run.skills.get(name)?.accuracy));
    }
    table.finish()
}

pub fn regions(rows: &[RegionSummary], runs: &Runs) -> String {
    let mut table = Table::new(
        "Between harmless and harmful prompts (second paper)",
        &[
            "model",
            "pairs",
            "median of the largest slope",
            "quartiles",
            "below 1.2",
            "above 10",
        ],
    );
    let names = [
        "base".to_owned(),
        format!("share {:?}", runs.top()),
        format!("share {:?}, spread", runs.cured_share()),
    ];
    for (index, row) in rows.iter().enumerate() {
        let of = |measure: fn(&RegionSlopes) -> f64| round(row.slopes.as_ref().map(measure), 2);
        table.row(&[
            names.get(index).unwrap_or(&row.model_digest).clone(),
            row.pair_count.to_string(),
            of(|slopes| slopes.max_slope_median),
            format!(
                "{}–{}",
                of(|slopes| slopes.max_slope_q1),
                of(|slopes| slopes.max_slope_q3)
            ),
            of(|slopes| slopes.share_below_1_2),
            of(|slopes| slopes.share_above_10),
        ]);
    }
    format!("<h2>Stable regions</h2>\n{}", table.finish())
}

/// Settings that were tried before, as their file has them: a heading and rows, divided by tabs.
pub fn tried(text: &str) -> String {
    let mut lines = text
        .lines()
        .map(|line| line.split('\t').map(escape).collect::<Vec<_>>());
    let titles = lines.next().unwrap_or_default();
    let mut table = Table::new(
        "Tried at share 0.9; numbers are means over the seeds that were run",
        &titles.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    lines.for_each(|cells| table.row(&cells));
    table.finish()
}

/// One number per seed.
fn each(runs: &[&Run], measure: impl Fn(&Run) -> Option<f64>) -> String {
    runs.iter()
        .map(|run| round(measure(run), 2))
        .collect::<Vec<_>>()
        .join(" ")
}
