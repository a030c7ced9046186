//! What `act-stats fit` will fit: laws, the keys of a series, and where each file's records stand.

use crate::cli::{FitArgs, LawName};
use numerics::laws::Law;
use process::{Error, Format, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    pub tool: &'static str,
    pub version: &'static str,
    pub x: String,
    pub y: String,
    pub laws: Vec<&'static str>,
    pub keep_going: bool,
    #[serde(skip)]
    pub laws_to_fit: Vec<Law>,
}

/// A file, and the step or size of its records where the argument says it.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub path: PathBuf,
    pub x: Option<f64>,
}

pub struct Opened {
    pub inputs: Vec<Input>,
    pub format: Format,
}

impl Plan {
    pub fn new(args: &FitArgs) -> Result<(Self, Opened)> {
        let mut laws: Vec<Law> = Vec::new();
        for law in args.law.iter().map(|name| law(*name)) {
            if laws.contains(&law) {
                return Err(Error::usage("--law", format!("{} is named twice", law.name())));
            }
            laws.push(law);
        }
        let plan = Self {
            tool: "act-stats",
            version: process::VERSION,
            x: args.x.clone(),
            y: args.y.clone(),
            laws: laws.iter().map(|law| law.name()).collect(),
            keep_going: args.keep_going,
            laws_to_fit: laws,
        };
        let inputs: Vec<Input> = args.inputs.iter().map(|argument| input(argument)).collect();
        let stdin = || Input {
            path: PathBuf::from("-"),
            x: None,
        };
        let opened = Opened {
            inputs: if inputs.is_empty() { vec![stdin()] } else { inputs },
            format: args.format.resolve(None),
        };
        Ok((plan, opened))
    }
}

/// `X=FILE` where what stands before the sign is a number; else all of it is a path.
fn input(argument: &Path) -> Input {
    let split = argument.to_str().and_then(|text| text.split_once('='));
    let placed = split.and_then(|(x, path)| Some((x.parse::<f64>().ok().filter(|x| x.is_finite())?, path)));
    match placed {
        Some((x, path)) => Input {
            path: path.into(),
            x: Some(x),
        },
        None => Input {
            path: argument.to_path_buf(),
            x: None,
        },
    }
}

fn law(name: LawName) -> Law {
    match name {
        LawName::Massive => Law::Massive,
        LawName::FirstOrder => Law::FirstOrder,
        LawName::SecondOrder => Law::SecondOrder,
        LawName::Power => Law::Power,
        LawName::StretchedDecay => Law::StretchedDecay,
        LawName::Linear => Law::Linear,
        LawName::Logarithm => Law::Logarithm,
    }
}
