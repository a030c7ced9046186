//! Claims 6, 10 and 12: paths through the layers, what a question mark changes, and borders between prompts.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use numerics::rng::Rng;
use numerics::statistics::{
    bootstrap, correlation_interval, mean, mean_difference, percentile_interval, quantile, sign_p_value,
};
use process::{Error, Result};
use records::{Prompt, Region, Stability, StabilityProfile, Trajectory};

use super::{Flags, Found, LEVEL, RESAMPLE_COUNT, Rule, Test};
use crate::rows;

pub fn tests(flags: &Flags, rng: &Rng) -> Result<Vec<Test>> {
    Ok(vec![
        Test {
            claim: 6,
            what: "paths of unsafe prompts fluctuate more than those of safe ones: mean smoothness ratio, unsafe less safe",
            rule: Rule::Effect(0.05),
            found: match flags.paths.as_deref().zip(flags.prompts.as_deref()) {
                Some((paths, prompts)) => smoothness(paths, prompts, flags, rng)?,
                None => None,
            },
        },
        Test {
            claim: 10,
            what: "projections on PC1 with and without the last question mark correlate in all layers: least correlation",
            rule: Rule::Effect(0.98),
            found: flags.stability.as_deref().map(stability).transpose()?.flatten(),
        },
        Test {
            claim: 12,
            what: "fine-tuning sharpens borders between harmless and harmful prompts: relative change of the median largest slope",
            rule: Rule::Effect(0.1),
            found: flags
                .regions
                .as_deref()
                .map(|path| slopes(path, rng))
                .transpose()?
                .flatten(),
        },
    ])
}

/// Of each prompt's own path, by the label of its prompt.
fn smoothness(paths: &Path, prompts: &Path, flags: &Flags, rng: &Rng) -> Result<Option<Found>> {
    let prompts: Vec<Prompt> = rows::read(prompts)?;
    let asked = prompts
        .into_iter()
        .filter(|prompt| prompt.bench.as_ref() == Some(&flags.bench));
    let labels: HashMap<String, Option<String>> = asked.map(|prompt| (prompt.id, prompt.label)).collect();
    let (mut safe, mut harmful) = (Vec::new(), Vec::new());
    for path in rows::read::<Trajectory>(paths)? {
        let Some(label) = path.id.as_ref().and_then(|id| labels.get(id)?.as_deref()) else {
            continue;
        };
        if path.component != "1" || path.basis != "own" {
            continue;
        }
        match label {
            "safe" => safe.extend(path.smoothness_ratio),
            _ => harmful.extend(path.smoothness_ratio),
        }
    }
    let tested = mean_difference(&safe, &harmful, RESAMPLE_COUNT, LEVEL, rng);
    Ok(tested
        .zip(mean(&safe).zip(mean(&harmful)))
        .map(|((interval, p), (safe, harmful))| Found {
            estimate: harmful - safe,
            interval: Some(interval),
            p: Some(p),
            rest_holds: true,
            run_count: 1,
        }))
}

/// The layer of the least correlation stands for all.
fn stability(path: &Path) -> Result<Option<Found>> {
    let profile = rows::read::<StabilityProfile>(path)?.pop();
    let Some(prompt_count) = profile.map(|row| row.prompt_count) else {
        return Err(Error::input(
            path.display(),
            "no stability profile (flowlens-pca --stability)",
        ));
    };
    let layers = rows::read::<Stability>(path)?;
    let least = layers
        .iter()
        .filter_map(|row| row.pc1_correlation)
        .min_by(f64::total_cmp);
    Ok(least.map(|least| Found {
        estimate: least,
        interval: correlation_interval(least, prompt_count, LEVEL),
        p: None,
        rest_holds: true,
        run_count: 1,
    }))
}

/// The second model of the records against the first, over the pairs that both could measure.
fn slopes(path: &Path, rng: &Rng) -> Result<Option<Found>> {
    let mut models = Vec::<String>::new();
    let mut slopes = BTreeMap::<String, [Option<f64>; 2]>::new();
    for region in rows::read::<Region>(path)? {
        let Some(measured) = region.measured().filter(|_| region.baseline.is_none()) else {
            continue;
        };
        let at = models.iter().position(|digest| *digest == region.model_digest);
        let at = at.unwrap_or_else(|| {
            models.push(region.model_digest.clone());
            models.len() - 1
        });
        if at < 2 {
            slopes.entry(region.id.clone()).or_default()[at] = Some(measured.max_slope);
        }
    }
    let pairs = slopes.into_values().filter_map(|[before, after]| before.zip(after));
    let (before, after): (Vec<f64>, Vec<f64>) = pairs.unzip();
    let change = |counts: &[u32]| Some(drawn_median(&after, counts)? / drawn_median(&before, counts)? - 1.0);
    let Some(estimate) = change(&vec![1; before.len()]) else {
        return Ok(None);
    };
    let replicates = bootstrap(rng, before.len(), RESAMPLE_COUNT, change);
    Ok(Some(Found {
        estimate,
        interval: percentile_interval(&replicates, LEVEL),
        p: Some(sign_p_value(&replicates)),
        rest_holds: true,
        run_count: models.len().min(2),
    }))
}

/// The median of a resample: each value as often as it was drawn.
fn drawn_median(values: &[f64], counts: &[u32]) -> Option<f64> {
    let each = |(&count, &value): (&u32, &f64)| std::iter::repeat_n(value, count as usize);
    let mut drawn: Vec<f64> = counts.iter().zip(values).flat_map(each).collect();
    drawn.sort_by(f64::total_cmp);
    quantile(&drawn, 0.5)
}
