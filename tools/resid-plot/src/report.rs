//! The records resid-plot emits when it writes a file: one per figure drawn.

use crate::figure::{Figure, Mark};
use serde::Serialize;

#[derive(Serialize)]
#[serde(tag = "type", rename = "figure")]
pub struct FigureRow<'a> {
    figure: &'a str,
    title: &'a str,
    panel_count: usize,
    mark_count: usize,
}

impl<'a> FigureRow<'a> {
    pub fn new(figure: &'a Figure) -> Self {
        let drawn = |mark: &&Mark| !matches!(mark, Mark::Label { .. });
        Self {
            figure: figure.kind,
            title: &figure.title,
            panel_count: figure.panels.len(),
            mark_count: figure
                .panels
                .iter()
                .flat_map(|panel| &panel.marks)
                .filter(drawn)
                .count(),
        }
    }
}
