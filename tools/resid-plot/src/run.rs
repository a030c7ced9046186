//! Reads the inputs, builds the figures, draws them and commits the picture.

use crate::cli::{Args, Format};
use crate::draw;
use crate::figure::Figure;
use crate::figures::Kind;
use crate::plan::{Input, Plan};
use crate::report::FigureRow;
use crate::source::Source;
use process::{Common, Error, Outcome, Output, Result, ResultExt};
use records::Row;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

pub fn run(args: Args) -> Result<Outcome> {
    let plan = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let files: Vec<PathBuf> = plan
        .inputs
        .iter()
        .map(|input| input.path.clone())
        .filter(|path| path != Path::new("-"))
        .collect();
    process::check_target(&plan.target, plan.existing, &files)?;

    let sources = plan
        .inputs
        .iter()
        .map(|input| read(input, &args.common))
        .collect::<Result<Vec<_>>>()?;
    let mut figures = figures(&plan, &sources)?;
    for figure in &mut figures {
        if figure.kind == "sweep" {
            figure
                .panels
                .iter_mut()
                .for_each(|panel| panel.x.name.clone_from(&plan.x_name));
        }
    }
    let picture = picture(&plan, &mut figures).map_err(|cause| Error::bug("drawing", cause))?;

    let mut output = match plan.to {
        Format::Png => Output::create_binary(&plan.target, plan.existing, &files)?,
        Format::Svg | Format::Html => Output::create(&plan.target, plan.existing, &files)?,
    };
    output.write_all(&picture).at(plan.target.display())?;
    output.commit()?;
    if plan.target != Path::new("-") {
        report(&plan, &figures)?;
    }
    Ok(Outcome::Complete)
}

fn read(input: &Input, common: &Common) -> Result<Source> {
    let path = input.path.display().to_string();
    let opened: Box<dyn Read> = match path.as_str() {
        "-" => Box::new(std::io::stdin().lock()),
        _ => Box::new(File::open(&input.path).at(&path)?),
    };
    let mut reader = records::Reader::new(opened);
    let mut rows = Vec::new();
    while let Some(row) = reader.next_row().at(&path)? {
        process::signals::check()?;
        // A row that names no type of ours is nothing we could draw.
        if row.kind.is_some() {
            rows.push(Row {
                text: String::new(),
                ..row
            });
        }
    }
    let unplaced = largest_unplaced_layer(&rows);
    if let Some(layer) = unplaced {
        process::warn(
            common,
            &format!(
                "{path}: some records do not say how many blocks the model has; depth is drawn as if block {layer} were the last"
            ),
        );
    }
    Ok(Source {
        name: input.into(),
        path,
        rows,
        layer_count_seen: unplaced.map_or(1, |layer| layer + 1),
    })
}

/// The largest layer index of all rows that are drawn by depth, if one of them does not say its depth.
fn largest_unplaced_layer(rows: &[Row]) -> Option<usize> {
    let by_depth = |row: &&Row| match row.kind.as_deref() {
        Some("layer" | "trajectory") => true,
        // A component that exists once has no depth.
        Some("act") => row.value.contains_key("layer_index"),
        _ => false,
    };
    let is_unplaced = rows.iter().filter(by_depth).any(|row| !row.value.contains_key("depth"));
    let layers = |row: &Row| match row.value.get("layer_index") {
        Some(Value::Array(layers)) => layers.iter().filter_map(Value::as_u64).max(),
        layer => layer.and_then(Value::as_u64),
    };
    let largest = rows.iter().filter(by_depth).filter_map(layers).max()?;
    is_unplaced.then_some(usize::try_from(largest).ok()?)
}

/// The figures asked for, or every plain kind that the records support.
fn figures(plan: &Plan, sources: &[Source]) -> Result<Vec<Figure>> {
    if plan.kinds.is_empty() {
        let found = Kind::PLAIN
            .iter()
            .filter_map(|kind| kind.figures(sources).transpose())
            .collect::<Result<Vec<_>>>()?;
        let names: Vec<&str> = found.iter().map(|figure| figure.kind).collect();
        return match (found.len(), plan.to) {
            (0, _) => Err(Error::input(&sources[0].path, "no record here can be drawn")),
            (1, _) | (_, Format::Html) => Ok(found),
            (count, _) => Err(Error::usage(
                "--figure",
                format!("the records hold {count} figures and a picture holds one"),
            )
            .hint(format!("choose one of {}, or write a page (.html)", names.join(", ")))),
        };
    }
    plan.kinds
        .iter()
        .map(|kind| match kind.figures(sources)? {
            Some(figure) => Ok(figure),
            None => Err(Error::input(
                &sources[0].path,
                format!("no record here belongs to the figure {kind}"),
            )),
        })
        .collect()
}

fn picture(plan: &Plan, figures: &mut [Figure]) -> std::result::Result<Vec<u8>, draw::DrawError> {
    if plan.to == Format::Html {
        let title = plan.title.clone().unwrap_or_else(|| "flowlens report".to_string());
        return draw::page(&title, figures).map(String::into_bytes);
    }
    let figure = &mut figures[0];
    if let Some(title) = &plan.title {
        figure.title.clone_from(title);
    }
    let svg = draw::svg(figure, true)?;
    match plan.to {
        Format::Png => draw::png(&svg, plan.scale),
        _ => Ok(svg.into_bytes()),
    }
}

fn report(plan: &Plan, figures: &[Figure]) -> Result<()> {
    let stdout = process::stdout().tolerant();
    let mut writer = records::Writer::new(stdout);
    let begin = records::Begin::new(process::tool_name(), process::VERSION).plan_digest(process::plan::digest(plan)?);
    writer.begin(&begin, &()).at("stdout")?;
    for figure in figures {
        writer.row(&FigureRow::new(figure)).at("stdout")?;
    }
    writer.end(records::Status::Complete, &()).at("stdout")?.finish()
}
