//! Does what the plan says.

use crate::cli::Args;
use crate::doctor;
use crate::plan::Plan;
use crate::report::Finding;
use process::{Cell, Format, Outcome, Result, ResultExt, Sibling, Table};
use records::{Begin, Status, Writer};
use std::io::Write;
use std::path::PathBuf;

pub fn run(args: Args) -> Result<Outcome> {
    let plan = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    match plan {
        Plan::Doctor { format } => examine(format),
        Plan::Report { inputs, output, force } => draw(inputs, output, force),
    }
}

fn examine(format: Format) -> Result<Outcome> {
    let findings = doctor::findings();
    match format {
        Format::Jsonl => print_records(&findings)?,
        Format::Table => print_table(&findings)?,
    }
    match findings.iter().all(|finding| finding.fine) {
        true => Ok(Outcome::Complete),
        false => Ok(Outcome::Verdict),
    }
}

fn print_records(findings: &[Finding]) -> Result<()> {
    let mut out = Writer::new(process::stdout());
    out.begin(&Begin::new(process::tool_name(), process::VERSION), &())
        .at("stdout")?;
    for finding in findings {
        out.row(finding).at("stdout")?;
    }
    out.end(Status::Complete, &()).at("stdout")?.finish()
}

fn print_table(findings: &[Finding]) -> Result<()> {
    let mut table = Table::new(["what", "fine", "found"]);
    for finding in findings {
        let fine = if finding.fine { "yes" } else { "no" };
        table.row([
            Cell::text(&finding.subject),
            Cell::text(fine),
            Cell::text(&finding.value),
        ]);
    }
    let mut out = process::stdout();
    out.write_all(table.to_string().as_bytes()).at("stdout")?;
    out.finish()
}

/// This process becomes the one that draws.
fn draw(inputs: Vec<PathBuf>, output: PathBuf, force: bool) -> Result<Outcome> {
    let call = Sibling::new("resid-plot")
        .args(inputs)
        .args(["--to", "html", "-o"])
        .arg(output)
        .args(force.then_some("--force"));
    Err(call.exec())
}
