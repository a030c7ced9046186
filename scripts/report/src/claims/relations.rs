//! Claims 2 to 5: what goes along with what, over runs.

use numerics::ranks::{partial_spearman, permutation_p, spearman, spearman_interval};
use numerics::rng::Rng;

use super::{Found, LEVEL, RESAMPLE_COUNT, Rule, Test};
use crate::summary::Run;

pub fn tests(runs: &[Run], bench: &str, rng: &Rng) -> Vec<Test> {
    let plain: Vec<&Run> = runs.iter().filter(|run| run.settings.arm == "share").collect();
    let compared: Vec<&Run> = plain.iter().filter(|run| run.settings.share > 0.0).copied().collect();
    let with_loss = |run: &&Run| run.settings.arm == "share" || run.settings.sign.is_some();
    let cured: Vec<&Run> = runs.iter().filter(with_loss).collect();
    let rate = |run: &Run| run.benches.get(bench)?.false_refusal;
    vec![
        Test {
            claim: 2,
            what: "false refusals rise with the safety share: rank correlation",
            rule: Rule::Effect(0.5),
            found: along_the_share(&plain, rng, rate),
        },
        Test {
            claim: 3,
            what: "alignment with the model of share 0 falls with the share: rank correlation",
            rule: Rule::Effect(-0.5),
            found: along_the_share(&compared, rng, |run| run.alignment_id),
        },
        Test {
            claim: 4,
            what: "concentration of the stack rises with the share: rank correlation",
            rule: Rule::Effect(0.5),
            found: along_the_share(&plain, rng, |run| run.stack_c_k),
        },
        Test {
            claim: 5,
            what: "concentration of the window goes with false refusals given the share: partial rank correlation",
            rule: Rule::Effect(0.3),
            found: given_the_share(&cured, rng, |run| run.window_c_k, rate),
        },
    ]
}

/// Over the runs of which the measure was taken. Shares are permuted within a seed.
fn along_the_share(runs: &[&Run], rng: &Rng, measure: impl Fn(&Run) -> Option<f64>) -> Option<Found> {
    let measured = runs.iter().filter_map(|run| Some((*run, measure(run)?)));
    let (runs, values): (Vec<&Run>, Vec<f64>) = measured.unzip();
    let shares: Vec<f64> = runs.iter().map(|run| run.settings.share).collect();
    let seeds: Vec<u64> = runs.iter().map(|run| run.settings.seed).collect();
    let rho = spearman(&shares, &values)?;
    Some(Found {
        estimate: rho,
        interval: spearman_interval(rho, runs.len(), 0, LEVEL),
        p: permutation_p(rng, RESAMPLE_COUNT, &shares, &seeds, |shares| spearman(shares, &values)),
        rest_holds: true,
        run_count: runs.len(),
    })
}

/// Over the runs of which both were taken. The measure is permuted among runs of one share.
fn given_the_share(
    runs: &[&Run],
    rng: &Rng,
    measure: impl Fn(&Run) -> Option<f64>,
    outcome: impl Fn(&Run) -> Option<f64>,
) -> Option<Found> {
    let measured = runs
        .iter()
        .filter_map(|run| Some((*run, (measure(run)?, outcome(run)?))));
    let (runs, (measures, outcomes)): (Vec<&Run>, (Vec<f64>, Vec<f64>)) = measured.unzip();
    let shares: Vec<f64> = runs.iter().map(|run| run.settings.share).collect();
    let blocks: Vec<u64> = shares.iter().map(|share| share.to_bits()).collect();
    let rho = partial_spearman(&measures, &outcomes, &shares)?;
    Some(Found {
        estimate: rho,
        interval: spearman_interval(rho, runs.len(), 1, LEVEL),
        p: permutation_p(rng, RESAMPLE_COUNT, &measures, &blocks, |measures| {
            partial_spearman(measures, &outcomes, &shares)
        }),
        rest_holds: true,
        run_count: runs.len(),
    })
}
