//! Rates with their intervals, one row per type or benchmark: refusals (refusal-eval) and accuracy (skill-eval).

use crate::figure::{Axis, Figure, Mark, Panel, Scale};
use crate::source::{Series, Source, plain, series_name};
use indexmap::IndexSet;
use process::Result;
use records::{RefusalReport, SkillReport};

/// One interval before it is laid out.
struct Rate {
    panel: String,
    row: String,
    series: String,
    interval: (f64, f64, f64),
}

pub fn refusal(sources: &[Source]) -> Result<Option<Figure>> {
    let mut rates = Vec::new();
    for source in sources {
        let rows = source.all::<RefusalReport>()?;
        let judge_count = distinct(rows.iter().map(|r| r.judge.as_str()));
        let has_nonsense = rows.iter().any(|row| row.nonsense_count > 0);
        for row in &rows {
            let judge = if judge_count > 1 { row.judge.as_str() } else { "" };
            let kind = match row.kind.as_str() {
                "all" if row.label.is_empty() => "all".to_string(),
                "all" => format!("all {}", row.label),
                kind => kind.to_string(),
            };
            let refused = (
                row.refusal_rate_any_low,
                row.refusal_rate_any,
                row.refusal_rate_any_high,
            );
            let series = series_name(sources, source, judge);
            let mut add = |series: String, (low, rate, high): (f64, Option<f64>, f64)| {
                rates.extend(rate.map(|rate| Rate {
                    panel: row.bench.clone(),
                    row: plain(&kind),
                    series,
                    interval: (low, rate, high),
                }));
            };
            if has_nonsense && let (Some(low), Some(high)) = (row.nonsense_rate_low, row.nonsense_rate_high) {
                let name = match series.is_empty() {
                    true => "nonsense".to_string(),
                    false => format!("{series}, nonsense"),
                };
                add(name, (low, row.nonsense_rate, high));
            }
            add(series, refused);
        }
    }
    Ok(layout(rates, "share refused (full or partial)").map(|panels| Figure {
        kind: "refusal",
        title: "Refusal rates by type of prompt".to_string(),
        caption: "Share of prompts refused, fully or partly, with 95 % Wilson intervals. On safe types a refusal is a false one; types that begin \
                  with contrast are unsafe, and a refusal is right. Nonsense, where there is any, is neither refused nor answered."
            .to_string(),
        panels,
    }))
}

pub fn skill(sources: &[Source]) -> Result<Option<Figure>> {
    let mut rates = Vec::new();
    for source in sources {
        let rows = source.all::<SkillReport>()?;
        let extractor_count = distinct(rows.iter().map(|r| r.extractor.as_str()));
        for row in &rows {
            let Some(rate) = row.accuracy else { continue };
            let parts: Vec<&str> = [row.task.as_str(), row.subject.as_str()]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect();
            let extractor = if extractor_count > 1 {
                row.extractor.as_str()
            } else {
                ""
            };
            rates.push(Rate {
                panel: row.bench.clone(),
                row: plain(&if parts.is_empty() {
                    "all".to_string()
                } else {
                    parts.join(" · ")
                }),
                series: series_name(sources, source, extractor),
                interval: (row.accuracy_low, rate, row.accuracy_high),
            });
        }
    }
    Ok(layout(rates, "share correct").map(|panels| Figure {
        kind: "skill",
        title: "Accuracy by task".to_string(),
        caption: "Share of questions answered correctly, with 95 % Wilson intervals.".to_string(),
        panels,
    }))
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.collect::<IndexSet<_>>().len()
}

fn layout(rates: Vec<Rate>, axis: &str) -> Option<Vec<Panel>> {
    let mut series = Series::default();
    let series_count = distinct(rates.iter().map(|r| r.series.as_str()));
    let mut panels: Vec<Panel> = Vec::new();
    let benches: IndexSet<&str> = rates.iter().map(|rate| rate.panel.as_str()).collect();
    for bench in benches {
        let of_bench: Vec<&Rate> = rates.iter().filter(|r| r.panel == bench).collect();
        let names: IndexSet<&str> = of_bench.iter().map(|rate| rate.row.as_str()).collect();
        let mut panel = Panel::new(
            plain(bench),
            Axis::new(axis, "").within(0.0, 1.0),
            Axis::new("", "").scaled(Scale::Category(names.iter().map(ToString::to_string).collect())),
        );
        for rate in of_bench {
            let row = names.get_index_of(rate.row.as_str())? as f64;
            let index = series.index(&rate.series);
            // Series share a row without covering each other.
            let shift = (index as f64 - (series_count as f64 - 1.0) / 2.0) * (0.7 / series_count.max(2) as f64);
            let (low, value, high) = rate.interval;
            panel.marks.push(Mark::Interval {
                name: rate.series.clone(),
                series: index,
                points: vec![(row + shift, low, value, high)],
            });
        }
        panels.push(panel);
    }
    (!panels.is_empty()).then_some(panels)
}
