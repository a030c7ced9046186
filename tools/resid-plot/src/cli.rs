//! The arguments of resid-plot. The doc comments are the help text and the man page.

use crate::figures::Kind;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Draw the records of the other tools.
///
/// Reads record streams and draws what they hold: layer trajectories, spectra, variance concentration, training curves,
/// refusal rates, interpolation curves, slices, candidates for steering and what a model can do without. The format follows the name of the output: .svg and .png hold one
/// figure, .html holds every figure asked for on one page that fetches nothing. In a browser a point says its numbers, and a
/// click on an entry of the legend hides the series of that colour.
///
/// An input is FILE, NAME=FILE or SERIES@X=FILE. NAME stands in the legend; several inputs are drawn over each other. X
/// places an input on the axis of a sweep, and inputs of one SERIES and X are repeats. A file whose own name holds an
/// equals sign is written with its directory (./a=b.jsonl).
#[derive(Debug, Clone, Parser)]
#[command(name = "resid-plot", version, after_long_help = EXAMPLES)]
pub struct Args {
    /// Record streams; - is stdin
    #[arg(value_name = "[NAME=]FILE", required = true)]
    pub inputs: Vec<String>,

    /// What to draw; may be repeated (default: everything the records hold)
    ///
    /// One of trajectory, projection, spectrum, concentration, training, refusal, skill, interpolation, slice, massive, magnitudes, law, candidates, sparsity, perplexity, layer:FIELD
    /// (a number of the layer records against depth) and sweep:RECORD.FIELD (a number of every input against its X).
    #[arg(long, value_name = "KIND")]
    pub figure: Vec<Kind>,

    /// Heading of the picture or page
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,

    /// Name and unit of a sweep's horizontal axis
    #[arg(long, value_name = "TEXT", default_value = "x")]
    pub x_name: String,

    /// Format, where the output's name does not say it
    #[arg(long, value_name = "FORMAT")]
    pub to: Option<Format>,

    /// Pixels of a PNG per pixel of the SVG
    #[arg(long, value_name = "FACTOR", default_value_t = 2.0)]
    pub scale: f32,

    #[command(flatten)]
    pub output: process::OutputFlags,

    #[command(flatten)]
    pub common: process::Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Svg,
    Png,
    Html,
}

impl Args {
    /// The output as typed; a picture has no default place.
    pub fn target(&self) -> process::Result<PathBuf> {
        self.output.output.clone().ok_or_else(|| {
            process::Error::usage("--output", "no output was named")
                .hint("-o FILE.svg, FILE.png or FILE.html; -o - writes to stdout")
        })
    }
}

impl process::Tool for Args {
    fn common(&self) -> &process::Common {
        &self.common
    }
}

const EXAMPLES: &str = "\
EXAMPLES:
  Trajectories of two models over each other:
    resid-plot base=base.jsonl tuned=tuned.jsonl --figure trajectory -o trajectories.svg

  Everything a run left behind, on one page:
    resid-plot metrics.jsonl pca.jsonl refusals.jsonl -o report.html

  False refusal against the safety share, two seeds each:
    resid-plot SFT@0=a.jsonl SFT@0=b.jsonl SFT@0.5=c.jsonl SFT@0.5=d.jsonl \\
        --figure sweep:refusal_report.false_refusal --x-name 'safety share' -o sweep.png
";
