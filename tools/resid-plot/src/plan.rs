//! From arguments to what will be read and drawn; nothing is opened here.

use crate::cli::{Args, Format};
use crate::figures::Kind;
use crate::source::Name;
use process::{Error, Existing, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize)]
pub struct Plan {
    pub inputs: Vec<Input>,
    /// Empty: everything the records hold.
    pub figures: Vec<String>,
    pub title: Option<String>,
    pub x_name: String,
    pub format: &'static str,
    pub scale: f32,
    #[serde(skip)]
    pub kinds: Vec<Kind>,
    #[serde(skip)]
    pub target: PathBuf,
    #[serde(skip)]
    pub existing: Existing,
    #[serde(skip)]
    pub to: Format,
}

#[derive(Debug, Serialize)]
pub struct Input {
    pub series: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<f64>,
    #[serde(skip)]
    pub path: PathBuf,
}

impl Plan {
    pub fn new(args: &Args) -> Result<Self> {
        let target = args.target()?;
        let to = match args.to {
            Some(format) => format,
            None => format_of(&target)?,
        };
        if !(0.1..=10.0).contains(&args.scale) {
            return Err(Error::usage(
                "--scale",
                format!("{} is not between 0.1 and 10", args.scale),
            ));
        }
        if to != Format::Html && args.figure.len() > 1 {
            return Err(Error::usage(
                "--figure",
                format!("{} figures do not fit one picture", args.figure.len()),
            )
            .hint("write a page (.html), or draw them one by one"));
        }
        let inputs = args.inputs.iter().map(|text| input(text)).collect::<Result<Vec<_>>>()?;
        if inputs.iter().filter(|input| input.path == Path::new("-")).count() > 1 {
            return Err(Error::usage("-", "stdin can be read once"));
        }
        Ok(Self {
            inputs,
            figures: args.figure.iter().map(ToString::to_string).collect(),
            title: args.title.clone(),
            x_name: args.x_name.clone(),
            format: match to {
                Format::Svg => "svg",
                Format::Png => "png",
                Format::Html => "html",
            },
            scale: args.scale,
            kinds: args.figure.clone(),
            target,
            existing: Existing::from_flags(args.output.force, false),
            to,
        })
    }
}

fn format_of(path: &Path) -> Result<Format> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Ok(Format::Svg),
        Some("png") => Ok(Format::Png),
        Some("html" | "htm") => Ok(Format::Html),
        _ => Err(Error::usage(path.display(), "the name does not say which format")
            .hint("end it in .svg, .png or .html, or give --to")),
    }
}

/// The part before the first `=` is a name unless it holds a `/`, as only a path would.
fn input(text: &str) -> Result<Input> {
    let (name, path) = match text.split_once('=') {
        Some((name, path)) if !name.contains('/') => (Some(name), path),
        _ => (None, text),
    };
    let Some(name) = name else {
        return Ok(Input {
            series: stem(path),
            x: None,
            path: path.into(),
        });
    };
    let (series, x) = match name.rsplit_once('@') {
        Some((series, x)) => match x.parse::<f64>() {
            Ok(x) if x.is_finite() => (series, Some(x)),
            _ => return Err(Error::usage(text, format!("\"{x}\" after @ is not a number"))),
        },
        None => (name, None),
    };
    Ok(Input {
        series: crate::source::plain(series),
        x,
        path: path.into(),
    })
}

/// What an unnamed input is called: its file name without directory and extension.
fn stem(path: &str) -> String {
    match Path::new(path).file_stem() {
        Some(stem) if path != "-" => crate::source::plain(&stem.to_string_lossy()),
        _ => String::new(),
    }
}

impl From<&Input> for Name {
    fn from(input: &Input) -> Self {
        Self {
            series: input.series.clone(),
            x: input.x,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_a_file_or_named_or_placed_on_an_axis() {
        let plain = input("out/a.jsonl").unwrap();
        assert_eq!((plain.series.as_str(), plain.x), ("a", None));
        let named = input("base model=a.jsonl").unwrap();
        assert_eq!(
            (named.series.as_str(), named.path.to_str()),
            ("base model", Some("a.jsonl"))
        );
        let placed = input("SFT@0.5=a.jsonl").unwrap();
        assert_eq!((placed.series.as_str(), placed.x), ("SFT", Some(0.5)));
        let with_equals = input("./a=b.jsonl").unwrap();
        assert_eq!(
            (with_equals.series.as_str(), with_equals.path.to_str()),
            ("a=b", Some("./a=b.jsonl"))
        );
        assert!(input("SFT@half=a.jsonl").is_err());
    }
}
