//! --format table: the summaries for a person at a terminal.

use crate::plan::Plan;
use crate::report::{ByVerdict, Compare, Summary};
use crate::summary::word;
use process::{Result, ResultExt, safe_text};
use std::io::Write;

pub fn print(plan: &Plan, summaries: &[Summary], compares: &[Compare], by_verdict: &[ByVerdict]) -> Result<()> {
    let name = |digest: &str| {
        let named = plan.models.iter().find(|model| model.model_digest == digest);
        safe_text(named.map_or(digest, |model| &model.name)).to_string()
    };
    let number = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.3}"));
    let mut sheets = Vec::new();
    let mut rows = vec![
        [
            "model",
            "group",
            "layer",
            "distance",
            "way",
            "pairs",
            "skipped",
            "slope median",
            "q1",
            "q3",
            "< 1.2",
            "> 10",
            "width",
            "boundary",
            "gate flips",
        ]
        .map(str::to_string)
        .to_vec(),
    ];
    for row in summaries {
        let slope = |pick: fn(&crate::report::Slopes) -> f64| number(row.slopes.as_ref().map(pick));
        rows.push(vec![
            name(&row.model_digest),
            safe_text(&row.group).to_string(),
            row.layer_index.to_string(),
            word(row.distance).to_string(),
            row.baseline.map_or("A to B", |_| "random").to_string(),
            row.pair_count.to_string(),
            row.skipped_count.to_string(),
            slope(|s| s.max_slope_median),
            slope(|s| s.max_slope_q1),
            slope(|s| s.max_slope_q3),
            slope(|s| s.share_below_1_2),
            slope(|s| s.share_above_10),
            number(row.width_median),
            number(row.boundary_alpha_median),
            number(row.gate_flip_count_median),
        ]);
    }
    sheets.push(rows);
    if !compares.is_empty() {
        let mut rows = vec![
            [
                "model",
                "against",
                "group",
                "layer",
                "distance",
                "pairs",
                "slope difference",
                "low",
                "high",
                "p",
            ]
            .map(str::to_string)
            .to_vec(),
        ];
        for row in compares {
            rows.push(vec![
                name(&row.model_digest),
                name(&row.base_model_digest),
                safe_text(&row.group).to_string(),
                row.layer_index.to_string(),
                word(row.distance).to_string(),
                row.pair_count.to_string(),
                number(Some(row.max_slope_delta)),
                number(Some(row.max_slope_delta_low)),
                number(Some(row.max_slope_delta_high)),
                format!("{:.1e}", row.p_value),
            ]);
        }
        sheets.push(rows);
    }
    if !by_verdict.is_empty() {
        let mut rows = vec![
            [
                "model",
                "layer",
                "distance",
                "label of A",
                "verdict on A",
                "pairs",
                "half at",
                "q1",
                "q3",
                "width",
                "slope median",
                "|A - B|",
            ]
            .map(str::to_string)
            .to_vec(),
        ];
        for row in by_verdict {
            rows.push(vec![
                name(&row.model_digest),
                row.layer_index.to_string(),
                word(row.distance).to_string(),
                safe_text(&row.label).to_string(),
                row.verdict.clone(),
                row.pair_count.to_string(),
                number(Some(row.half_alpha_median)),
                number(Some(row.half_alpha_q1)),
                number(Some(row.half_alpha_q3)),
                number(row.width_median),
                number(Some(row.max_slope_median)),
                number(Some(row.delta_norm_median)),
            ]);
        }
        sheets.push(rows);
    }
    let mut out = process::stdout();
    for (index, sheet) in sheets.iter().enumerate() {
        if index > 0 {
            writeln!(out).at("stdout")?;
        }
        let widths: Vec<usize> = (0..sheet[0].len())
            .map(|column| sheet.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for row in sheet {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end()).at("stdout")?;
        }
    }
    out.finish()
}
