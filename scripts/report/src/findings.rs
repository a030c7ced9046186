//! What was found, in sentences: whether false refusals rise, what they go along with, and whether the loss lowers them.

use numerics::statistics;

use crate::html::{round, within};
use crate::runs::{Runs, SIGNS, mean};
use crate::summary::{Change, Run};

/// Below this many runs a correlation is not spoken of.
const RUN_COUNT_MIN: usize = 5;

pub fn list(runs: &Runs) -> String {
    let plain: Vec<&Run> = runs.shares.concat();
    let at_one_share: Vec<&Run> = runs.arms.iter().flatten().chain(runs.uncured()).copied().collect();
    let rate = |run: &Run| runs.false_refusal(run);
    let stack = correlation(&plain, |run| run.stack_c_k, rate);
    let window = correlation(&plain, |run| run.window_c_k, rate);
    let moved = correlation(&at_one_share, |run| run.window_c_k, rate);
    let mut lines = vec![
        "<h2>What was found</h2><ul>".to_owned(),
        format!(
            "<li><b>Do false refusals rise with the safety share?</b> {}.</li>",
            rise(runs, &plain)
        ),
        format!(
            "<li><b>Does C<sub>4</sub> track them</b> as the share rises? Of the stack over all layers: {}. Of the window while training: {}. (The share drives both, so this alone shows no cause.)</li>",
            follows(stack.as_ref()),
            follows(window.as_ref()),
        ),
        format!(
            "<li><b>Do false refusals follow when the loss moves C<sub>4</sub></b> at share {:?}? {}.</li>",
            runs.cured_share(),
            follows(moved.as_ref()),
        ),
    ];
    lines.extend(signs(runs));
    lines.extend(runs.arms.iter().filter(|arm| !is_sign(arm)).map(|arm| {
        let settings = &arm[0].settings;
        let hinge = settings.hinge.map_or(String::new(), |hinge| format!(", hinge {hinge}"));
        format!(
            "<li>With k {}, gamma {}, depths {}{hinge}, <b>{}</b> {}.</li>",
            settings.k,
            settings.gamma,
            settings.window,
            settings.sign.as_deref().unwrap_or("no sign"),
            effect(runs, arm),
        )
    }));
    lines.push(CAUTION.to_owned());
    lines.join("\n")
}

fn is_sign(arm: &[&Run]) -> bool {
    SIGNS.contains(&arm[0].settings.arm.as_str())
}

fn signs(runs: &Runs) -> Option<String> {
    let [spread, concentrate] = SIGNS.map(|sign| runs.arm(sign));
    let gamma = spread.first()?.settings.gamma;
    concentrate.first()?;
    Some(format!(
        "<li><b>Which sign helps?</b> At gamma {gamma}, <b>spread</b> {}. <b>Concentrate</b> {}.</li>",
        effect(runs, spread),
        effect(runs, concentrate),
    ))
}

fn rise(runs: &Runs, plain: &[&Run]) -> String {
    let rate = |run: &Run| runs.false_refusal(run);
    let found = correlation(plain, |run| Some(run.settings.share), rate);
    let (Some(lowest), Some(highest)) = (mean(runs.lowest(), rate), mean(runs.highest(), rate)) else {
        return format!("No answer could be judged; {}", said(found.as_ref()));
    };
    let answer = match &found {
        None if highest > lowest => "They are higher",
        None => "They are not higher",
        Some(found) if found.interval.low > 0.0 => "Yes",
        Some(found) if found.interval.high < 0.0 => "No, they fall",
        Some(_) => "Not shown",
    };
    format!(
        "{answer}: {} at share {:?}, {} at {:?}; {}",
        round(lowest, 3),
        runs.lowest()[0].settings.share,
        round(highest, 3),
        runs.top(),
        said(found.as_ref()),
    )
}

/// Is it a cure? Only if refusals fall in every seed, and answers were not broken for it.
fn effect(runs: &Runs, arm: &[&Run]) -> String {
    let changes: Option<Vec<(u64, &Change, f64)>> = arm
        .iter()
        .map(|run| {
            let change = run.benches.get(runs.bench)?.change.as_ref()?;
            Some((run.settings.seed, change, change.delta?))
        })
        .collect();
    let Some(changes) = changes else {
        return "cannot be said to change false refusals (no answer could be judged)".into();
    };
    let falls = changes.iter().all(|(.., delta)| *delta < 0.0);
    let direction = if falls {
        "lowers false refusals in every seed"
    } else if changes.iter().all(|(.., delta)| *delta > 0.0) {
        "raises false refusals in every seed"
    } else {
        "does not change false refusals consistently"
    };
    let seeds: Vec<String> = changes
        .iter()
        .map(|(seed, change, delta)| {
            format!(
                "seed {seed}: {}",
                within(Some(*delta), change.delta_low, change.delta_high, 3)
            )
        })
        .collect();
    let both = |measure: &dyn Fn(&Run) -> Option<f64>| (mean(runs.uncured(), measure), mean(arm, measure));
    let (rate, loss, skill) = (
        both(&|run| runs.false_refusal(run)),
        both(&|run| run.loss),
        both(&Run::skill),
    );
    let is_broken = matches!(loss, (Some(before), Some(after)) if falls && after > 1.5 * before);
    format!(
        "{direction}, from {} to {} ({}); the fine-tuning loss goes from {} to {}, skill from {} to {}{}",
        round(rate.0, 3),
        round(rate.1, 3),
        seeds.join(", "),
        round(loss.0, 2),
        round(loss.1, 2),
        round(skill.0, 2),
        round(skill.1, 2),
        if is_broken {
            ": a model that answers worse also refuses less, so this is no cure"
        } else {
            ""
        },
    )
}

struct Correlation {
    count: usize,
    r: f64,
    interval: statistics::Interval,
}

/// Pearson's r over the runs that have both measures, with Fisher's interval; `None` for few runs or where nothing varies.
fn correlation(runs: &[&Run], x: impl Fn(&Run) -> Option<f64>, y: impl Fn(&Run) -> Option<f64>) -> Option<Correlation> {
    let (x, y): (Vec<f64>, Vec<f64>) = runs.iter().filter_map(|run| x(run).zip(y(run))).unzip();
    let count = x.len();
    let r = statistics::correlation(&x, &y).filter(|_| count >= RUN_COUNT_MIN)?;
    let interval = statistics::correlation_interval(r, count, 0.95)?;
    Some(Correlation { count, r, interval })
}

fn said(found: Option<&Correlation>) -> String {
    found.map_or_else(
        || "cannot be said (fewer than five runs, or nothing varies)".to_owned(),
        |found| {
            let of_r = within(Some(found.r), Some(found.interval.low), Some(found.interval.high), 2);
            format!("r = {of_r} over {} runs", found.count)
        },
    )
}

fn follows(found: Option<&Correlation>) -> String {
    let answer = match found {
        None => "",
        Some(found) if found.interval.low > 0.0 => "it tracks them: ",
        Some(found) if found.interval.high < 0.0 => "it moves against them: ",
        Some(_) => "no such relation is shown: ",
    };
    format!("{answer}{}", said(found))
}

const CAUTION: &str = "</ul><p>These are the numbers of this run, on this data and model, whether or not they agree with the paper. Numbers of seeds are listed one by one, because two or three are too few for an interval between seeds. An interval of a rate is Wilson&#39;s, over prompts; of a change, over the same prompts before and after; of r, Fisher&#39;s, as if runs were independent. All are at 95 %.</p>\n";
