//! Components on all threads, then the report.

use crate::measure::{self, Measured};
use crate::plan::measure::{Opened, Plan};
use crate::report::{End, Report};
use crate::source::Source;
use crate::subject::Subject;
use crate::{part, table};
use process::{Common, Format, Outcome, Progress, Result, ResultExt};
use rayon::prelude::*;
use records::{Begin, Status};
use std::io::Write;

pub fn run(plan: &Plan, opened: &Opened, common: &Common) -> Result<Outcome> {
    let measured = measure_all(common, plan, &opened.source)?;
    let subject = Subject::of(&opened.source, &measured)?;
    match opened.source.shard {
        Some(shard) => part::write(process::stdout(), shard, plan, &subject, &measured)?,
        None => write(plan, opened.format, &Report::new(plan, &subject, &measured))?,
    }
    Ok(Outcome::Complete)
}

fn measure_all(common: &Common, plan: &Plan, source: &Source) -> Result<Vec<Measured>> {
    let total = source.components.len() as u64;
    let progress = Progress::start(common, "components", Some(total), "component");
    let components = source.components.par_iter().with_max_len(1);
    let measured = components.map(|component| {
        let found = match component.dtype == acts::Dtype::F64 {
            true => measure::component::<f64>(plan, source, component),
            false => measure::component::<f32>(plan, source, component),
        };
        progress.advance(1);
        found
    });
    let measured = measured.collect();
    progress.finish();
    measured
}

pub fn write(plan: &Plan, format: Format, report: &Report) -> Result<()> {
    let mut out = process::stdout();
    if format == Format::Table {
        out.write_all(table::tables(report).as_bytes()).at("stdout")?;
        return out.finish();
    }
    let mut writer = records::Writer::new(out);
    let begin = Begin::new(&plan.tool, &plan.version).plan_digest(process::plan::digest(plan)?);
    writer.begin(&begin, &()).at("stdout")?;
    report.write(&mut writer).at("stdout")?;
    let end = End {
        input_digest: plan.input_digest.clone(),
    };
    writer.end(Status::Complete, &end).at("stdout")?.finish()
}
