//! 2-D slices through three prompts: the RGB picture of the second paper, and its three distance fields on a sequential
//! scale, because red against green is lost on many readers.

use crate::figure::{Axis, Cell, Figure, Mark, Panel};
use crate::source::{Source, plain};
use process::{Error, Result};
use records::Slice;

pub fn figure(sources: &[Source]) -> Result<Option<Figure>> {
    let mut panels = Vec::new();
    for source in sources {
        for slice in source.all::<Slice>()? {
            let fields = [
                flat(source, &slice, &slice.field_a)?,
                flat(source, &slice, &slice.field_b)?,
                flat(source, &slice, &slice.field_c)?,
            ];
            let colours = (0..fields[0].len())
                .map(|i| Cell::Rgb([1.0 - fields[0][i], 1.0 - fields[1][i], 1.0 - fields[2][i]]))
                .collect();
            let id = match source.name.series.as_str() {
                "" => plain(&slice.id),
                name => format!("{name}, {}", plain(&slice.id)),
            };
            panels.push(panel(
                &slice,
                format!("{id}: near A red, B green, C blue"),
                colours,
                None,
            ));
            for (name, field) in ["A", "B", "C"].into_iter().zip(fields) {
                let cells = field.into_iter().map(Cell::Value).collect();
                panels.push(panel(
                    &slice,
                    format!("distance from {name}"),
                    cells,
                    Some("distance / maximum".to_string()),
                ));
            }
        }
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "slice",
        title: "Plane through three prompts".to_string(),
        caption: "X(α, β) = A + α (B − A) + β (C − P), P being C's foot on the line AB. Each field is the distance of the read-out from one prompt's own, \
                  in that prompt's context, divided by its maximum. Flat patches with narrow borders are stable regions."
            .to_string(),
        panels,
    }))
}

fn flat(source: &Source, slice: &Slice, field: &[Vec<f32>]) -> Result<Vec<f64>> {
    if field.is_empty()
        || field.len() != slice.beta.len()
        || field.iter().any(|row| row.len() != slice.alpha.len() || row.is_empty())
    {
        return Err(Error::input(
            &source.path,
            format!(
                "slice \"{}\": a field does not have {} rows of {} numbers",
                plain(&slice.id),
                slice.beta.len(),
                slice.alpha.len()
            ),
        ));
    }
    Ok(field.iter().flatten().map(|value| f64::from(*value)).collect())
}

fn panel(slice: &Slice, title: String, cells: Vec<Cell>, colour_bar: Option<String>) -> Panel {
    // A cell is centred on its sample.
    let range = |samples: &[f64]| {
        let half = match samples {
            [first, second, ..] => (second - first) / 2.0,
            _ => 0.5,
        };
        (samples[0] - half, samples[samples.len() - 1] + half)
    };
    let (x, y) = (range(&slice.alpha), range(&slice.beta));
    let mut panel = Panel::new(
        title,
        Axis::new("α", "").within(x.0, x.1),
        Axis::new("β", "").within(y.0, y.1),
    );
    panel.colour_bar = colour_bar;
    panel.marks.push(Mark::Cells {
        columns: slice.alpha.len(),
        rows: cells,
    });
    for (text, at) in [("A", (0.0, 0.0)), ("B", (1.0, 0.0)), ("C", (slice.c_alpha, 1.0))] {
        panel.marks.push(Mark::Label {
            text: text.to_string(),
            at,
        });
    }
    panel
}
