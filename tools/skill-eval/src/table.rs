//! `--format table`: the reports for people, in columns.

use process::{Cell, Table};

use crate::report::SkillReport;

pub fn reports(reports: &[SkillReport]) -> String {
    let mut table = Table::new([
        "bench",
        "task",
        "extractor",
        "count",
        "unread",
        "accuracy",
        "interval",
        "all",
        "delta",
        "mcnemar_p",
    ]);
    for report in reports {
        let versus = report.versus.as_ref();
        table.row([
            Cell::text(&report.bench),
            Cell::text(part(report)),
            Cell::text(&report.extractor),
            Cell::count(report.count),
            Cell::count(report.unread_count),
            Cell::fixed(report.accuracy, 3),
            Cell::interval(report.accuracy_low, report.accuracy_high),
            Cell::fixed(report.accuracy_all, 3),
            Cell::signed(versus.and_then(|versus| versus.delta), 3),
            Cell::p_value(versus.map(|versus| versus.mcnemar_p)),
        ]);
    }
    table.to_string()
}

/// The part of the benchmark that a report is about.
fn part(report: &SkillReport) -> String {
    match (report.task.as_str(), report.subject.as_str()) {
        ("", "") => "all".to_string(),
        (task, "") => task.to_string(),
        ("", subject) => subject.to_string(),
        (task, subject) => format!("{task}/{subject}"),
    }
}
