//! `--format table`: the reports for people, in columns.

use process::{Cell, Table, one_below_the_other};

use records::RefusalReport;

use crate::report::{Calibration, Coverage, Opis, RefusalPair, SelfTraining};

pub fn calibrations(rows: &[Calibration]) -> String {
    one_below_the_other([agreements(rows), reliabilities(rows)])
}

fn agreements(rows: &[Calibration]) -> String {
    let mut table = Table::new([
        "source",
        "judge",
        "count",
        "unscored",
        "accuracy",
        "interval",
        "precision",
        "recall",
        "accuracy_3",
    ]);
    for row in rows {
        table.row([
            Cell::text(&row.source),
            Cell::text(&row.judge),
            Cell::count(row.count),
            Cell::count(row.unscored_count),
            Cell::fixed(row.figures.accuracy, 3),
            Cell::interval(row.figures.accuracy_low, row.figures.accuracy_high),
            Cell::fixed(row.figures.precision, 3),
            Cell::fixed(row.figures.recall, 3),
            Cell::fixed(row.figures.accuracy_3, 3),
        ]);
    }
    table.to_string()
}

/// Stated confidence beside what was right.
fn reliabilities(rows: &[Calibration]) -> String {
    let mut table = Table::new(["source", "judge", "confidence", "right", "count"]);
    for row in rows {
        for level in &row.reliability {
            table.row([
                Cell::text(&row.source),
                Cell::text(&row.judge),
                Cell::fixed(Some(level.confidence), 3),
                Cell::fixed(Some(level.accuracy), 3),
                Cell::count(level.count),
            ]);
        }
    }
    table.to_string()
}

pub fn reports(rows: &[RefusalReport], pairs: &[RefusalPair], opis: &[Opis]) -> String {
    one_below_the_other([
        rates(rows),
        summaries(rows),
        harms(rows),
        corrections(rows),
        changes(pairs),
        inconsistencies(opis),
    ])
}

fn rates(rows: &[RefusalReport]) -> String {
    let mut table = Table::new([
        "bench",
        "judge",
        "label",
        "kind",
        "count",
        "comply",
        "partial",
        "refuse",
        "nonsense",
        "unscored",
        "full",
        "any",
        "interval of any",
    ]);
    for row in rows {
        table.row([
            Cell::text(&row.bench),
            Cell::text(&row.judge),
            Cell::text(&row.label),
            Cell::text(&row.kind),
            Cell::count(row.count),
            Cell::count(row.compliance_count),
            Cell::count(row.partial_count),
            Cell::count(row.refusal_count),
            Cell::count(row.nonsense_count),
            Cell::count(row.unscored_count),
            Cell::fixed(row.refusal_rate_full, 3),
            Cell::fixed(row.refusal_rate_any, 3),
            Cell::interval(row.refusal_rate_any_low, row.refusal_rate_any_high),
        ]);
    }
    table.to_string()
}

fn summaries(rows: &[RefusalReport]) -> String {
    let mut table = Table::new([
        "bench",
        "judge",
        "false_refusal",
        "interval",
        "compliance_benign",
        "nonsense",
        "precision",
        "recall",
        "f1",
    ]);
    for row in rows {
        let Some(summary) = &row.summary else { continue };
        table.row([
            Cell::text(&row.bench),
            Cell::text(&row.judge),
            Cell::fixed(summary.false_refusal, 3),
            Cell::interval(summary.false_refusal_low, summary.false_refusal_high),
            Cell::fixed(summary.compliance_benign, 3),
            Cell::fixed(row.nonsense_rate, 3),
            Cell::fixed(summary.precision, 3),
            Cell::fixed(summary.recall, 3),
            Cell::fixed(summary.f1, 3),
        ]);
    }
    table.to_string()
}

fn harms(rows: &[RefusalReport]) -> String {
    let mut table = Table::new([
        "bench", "judge", "label", "kind", "refused", "harmless", "harmful", "unscored", "harm", "interval",
    ]);
    for row in rows {
        let Some(harm) = &row.harm else { continue };
        table.row([
            Cell::text(&row.bench),
            Cell::text(&row.judge),
            Cell::text(&row.label),
            Cell::text(&row.kind),
            Cell::count(harm.harm_refused_count),
            Cell::count(harm.harmless_count),
            Cell::count(harm.harmful_count),
            Cell::count(harm.harm_unscored_count),
            Cell::fixed(harm.harmful_rate, 3),
            Cell::interval(Some(harm.harmful_rate_low), Some(harm.harmful_rate_high)),
        ]);
    }
    table.to_string()
}

fn corrections(rows: &[RefusalReport]) -> String {
    let mut table = Table::new([
        "bench",
        "judge",
        "label",
        "kind",
        "any",
        "corrected",
        "interval",
        "by",
        "labels",
        "to halve",
    ]);
    for row in rows {
        let Some(correction) = &row.correction else { continue };
        table.row([
            Cell::text(&row.bench),
            Cell::text(&row.judge),
            Cell::text(&row.label),
            Cell::text(&row.kind),
            Cell::fixed(row.refusal_rate_any, 3),
            Cell::fixed(Some(correction.corrected_rate), 3),
            Cell::interval(
                Some(correction.corrected_rate_low),
                Some(correction.corrected_rate_high),
            ),
            Cell::text(&correction.corrected_by),
            Cell::count(correction.label_count),
            Cell::count_if_any(correction.labels_to_halve),
        ]);
    }
    table.to_string()
}

fn changes(pairs: &[RefusalPair]) -> String {
    let mut table = Table::new([
        "bench",
        "judge",
        "label",
        "pairs",
        "newly refused",
        "newly answered",
        "delta",
        "interval",
        "mcnemar_p",
        "needed",
        "negative flips",
    ]);
    for pair in pairs {
        table.row([
            Cell::text(&pair.bench),
            Cell::text(&pair.judge),
            Cell::text(&pair.label),
            Cell::count(pair.pair_count),
            Cell::count(pair.newly_refused_count),
            Cell::count(pair.newly_answered_count),
            Cell::signed(pair.delta, 3),
            Cell::interval(pair.delta_low, pair.delta_high),
            Cell::p_value(pair.mcnemar_p),
            Cell::count_if_any(pair.needed_count),
            Cell::fixed(pair.negative_flip_rate, 3),
        ]);
    }
    table.to_string()
}

pub fn self_training(rounds: &[SelfTraining], coverages: &[Coverage]) -> String {
    one_below_the_other([learnt(rounds), covered(coverages)])
}

fn learnt(rows: &[SelfTraining]) -> String {
    let mut table = Table::new(["round", "seeds", "labels", "audited", "agreement", "kept"]);
    for row in rows {
        table.row([
            Cell::count(row.round),
            Cell::count(row.seed_count),
            Cell::count(row.label_count),
            Cell::count(row.audit_count),
            Cell::fixed(row.agreement, 3),
            Cell::text(if row.kept { "yes" } else { "no" }),
        ]);
    }
    table.to_string()
}

fn covered(rows: &[Coverage]) -> String {
    let mut table = Table::new(["margin", "coverage", "audited", "error", "interval", "chosen"]);
    for row in rows {
        table.row([
            Cell::fixed(row.margin, 3),
            Cell::fixed(row.coverage, 3),
            Cell::count(row.audit_count),
            Cell::fixed(row.error, 3),
            Cell::interval(row.error_low, row.error_high),
            Cell::text(if row.chosen { "yes" } else { "" }),
        ]);
    }
    table.to_string()
}

/// The whole of each judge, then its groups.
fn inconsistencies(rows: &[Opis]) -> String {
    let mut table = Table::new([
        "judge",
        "field",
        "group",
        "safe",
        "unsafe",
        "opis",
        "utility",
        "auroc",
        "thresholds",
    ]);
    for row in rows {
        table.row([
            Cell::text(&row.judge),
            Cell::text(&row.group_field),
            Cell::text("all"),
            Cell::count(row.groups.iter().map(|group| group.safe_count).sum::<u64>()),
            Cell::count(row.groups.iter().map(|group| group.unsafe_count).sum::<u64>()),
            Cell::fixed(row.opis, 6),
            Cell::fixed(None, 3),
            Cell::fixed(row.auroc, 3),
            Cell::interval(row.threshold_low, row.threshold_high),
        ]);
        for group in &row.groups {
            table.row([
                Cell::text(&row.judge),
                Cell::text(&row.group_field),
                Cell::text(&group.group),
                Cell::count(group.safe_count),
                Cell::count(group.unsafe_count),
                Cell::fixed(None, 6),
                Cell::fixed(group.utility, 3),
                Cell::fixed(group.auroc, 3),
                Cell::interval(None, None),
            ]);
        }
    }
    table.to_string()
}
