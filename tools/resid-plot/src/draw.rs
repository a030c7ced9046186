//! Figures to SVG: layout, legend and caption. The panels themselves are drawn in `panel`, colours live in `palette`.
//! Positions are whole numbers in the drawing crate, so everything is laid out on a grid `GRID` times finer than a pixel
//! and the picture's `width` and `height` say the true size.

mod page;
mod palette;
mod panel;
mod png;
mod spots;

use crate::figure::{Figure, Mark, Panel, Weight};
use palette::Marker;
use plotters::coord::Shift;
use plotters::prelude::*;
use spots::{Key, Spot};
use std::fmt::Display;
use std::sync::OnceLock;

pub use page::page;
pub use png::png;

/// Grid units per pixel.
const GRID: i32 = 8;
const FONT: &str = "sans-serif";
const PANEL_WIDE: (i32, i32) = (640, 400);
const PANEL: (i32, i32) = (470, 340);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A drawing crate's refusal: always a bug of ours, since the figure's numbers were checked before.
#[derive(Debug)]
pub struct DrawError(String);

impl std::fmt::Display for DrawError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for DrawError {}

fn refused(cause: impl Display) -> DrawError {
    DrawError(cause.to_string())
}

/// The picture as an SVG document of its own. With `caption` the caption stands below it (a page sets it as text instead).
pub fn svg(figure: &Figure, caption: bool) -> Result<String, DrawError> {
    embed_font()?;
    let columns = match figure.panels.len() {
        1 => 1,
        n if n % 3 == 0 && n < 6 => 3,
        _ => 2,
    };
    let rows = figure.panels.len().div_ceil(columns);
    let panel = if figure.panels.len() == 1 { PANEL_WIDE } else { PANEL };
    let legend = Legend::of(figure);
    let width = panel.0 * columns as i32 + legend.width();
    let caption_lines = if caption {
        wrap(&figure.caption, width * 2 / 13)
    } else {
        Vec::new()
    };
    let top = 40;
    let bottom = if caption_lines.is_empty() {
        4
    } else {
        14 + 17 * caption_lines.len() as i32
    };
    let height = (panel.1 * rows as i32).max(legend.height()) + top + bottom;

    let mut document = String::new();
    let mut spots: Vec<Spot> = Vec::new();
    {
        let root =
            SVGBackend::with_string(&mut document, ((width * GRID) as u32, (height * GRID) as u32)).into_drawing_area();
        root.fill(&WHITE).map_err(refused)?;
        write(&root, &figure.title, (14, 12), 17)?;
        let (head, rest) = root.split_vertically(top * GRID);
        drop(head);
        let (body, foot) = rest.split_vertically((height - top - bottom) * GRID);
        let (charts, side) = body.split_horizontally(panel.0 * columns as i32 * GRID);
        for (area, panel) in charts.split_evenly((rows, columns)).iter().zip(&figure.panels) {
            spots.append(&mut panel::draw(area, panel)?);
        }
        legend.draw(&side)?;
        for (line, text) in caption_lines.iter().enumerate() {
            write(&foot, text, (14, 8 + 17 * line as i32), 12)?;
        }
        root.present().map_err(refused)?;
    }
    let fine = format!("width=\"{}\" height=\"{}\"", width * GRID, height * GRID);
    let true_size = format!("width=\"{width}\" height=\"{height}\"");
    // Neighbouring cells share an edge; smoothing both sides of it would leave a pale seam.
    let mut document = document
        .replacen(&fine, &true_size, 1)
        .replace("<rect ", "<rect shape-rendering=\"crispEdges\" ");
    if let Some(end) = document.rfind("</svg>") {
        let corner = (panel.0 * columns as i32, top);
        document.insert_str(end, &spots::overlay(&spots, &legend.keys(corner)));
    }
    // What a screen reader says, and the file's own name for the picture.
    if let Some(end) = document.find('>') {
        document.insert_str(
            end + 1,
            &format!(
                "\n<title>{}</title>\n<desc>{}</desc>",
                page::escape(&figure.title),
                page::escape(&figure.caption)
            ),
        );
    }
    Ok(document)
}

/// Text is measured with the font that PNG pictures are set in; on a page the reader's own sans-serif stands in.
fn embed_font() -> Result<(), DrawError> {
    static FONT_READY: OnceLock<bool> = OnceLock::new();
    match FONT_READY
        .get_or_init(|| plotters::style::register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok())
    {
        true => Ok(()),
        false => Err(refused("the embedded font cannot be read")),
    }
}

fn style<'a>(pixels: i32) -> TextStyle<'a> {
    (FONT, pixels * GRID).into_font().color(&palette::INK)
}

fn write(area: &Area, text: &str, at: (i32, i32), pixels: i32) -> Result<(), DrawError> {
    area.draw_text(text, &style(pixels), (at.0 * GRID, at.1 * GRID))
        .map_err(refused)
}

fn wrap(text: &str, characters: i32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= characters as usize => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

/// The middle of the legend's first row, and the height of one.
const ROW: (i32, i32) = (26, 20);

/// Every named series once, beside the panels, so that it never covers a curve.
struct Legend {
    entries: Vec<Entry>,
}

#[derive(PartialEq)]
struct Entry {
    name: String,
    series: usize,
    marked: bool,
    /// Where colour means depth, the marker alone tells the series.
    coloured: bool,
}

impl Legend {
    fn of(figure: &Figure) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        for mark in figure.panels.iter().flat_map(|p: &Panel| &p.marks) {
            let (name, series, marked, coloured) = match mark {
                Mark::Line {
                    weight: Weight::Faint, ..
                } => continue,
                Mark::Line {
                    name, series, weight, ..
                } => (name, *series, *weight == Weight::Marked, true),
                Mark::Points { name, series, .. } | Mark::Interval { name, series, .. } => (name, *series, true, true),
                Mark::Path { name, series, .. } => (name, *series, true, false),
                _ => continue,
            };
            let entry = Entry {
                name: name.clone(),
                series,
                marked,
                coloured,
            };
            if !name.is_empty() && !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        // One series needs no key: the title names it.
        if entries.len() < 2 {
            entries.clear();
        }
        Self { entries }
    }

    fn width(&self) -> i32 {
        match self.entries.iter().map(|entry| entry.name.chars().count()).max() {
            Some(longest) => 62 + 7 * longest.min(40) as i32,
            None => 0,
        }
    }

    fn height(&self) -> i32 {
        30 + ROW.1 * self.entries.len() as i32
    }

    /// Where the entries lie whose colour is their own, with the legend's corner at so many pixels.
    fn keys(&self, corner: (i32, i32)) -> Vec<Key> {
        let key = |(row, entry): (usize, &Entry)| {
            entry.coloured.then(|| Key {
                at: (
                    corner.0 * GRID,
                    (corner.1 + ROW.0 - ROW.1 / 2 + ROW.1 * row as i32) * GRID,
                ),
                size: (self.width() * GRID, ROW.1 * GRID),
                name: entry.name.clone(),
                colour: palette::series(entry.series),
            })
        };
        self.entries.iter().enumerate().filter_map(key).collect()
    }

    fn draw(&self, area: &Area) -> Result<(), DrawError> {
        for (
            row,
            Entry {
                name,
                series,
                marked,
                coloured,
            },
        ) in self.entries.iter().enumerate()
        {
            let colour = if *coloured {
                palette::series(*series)
            } else {
                palette::AXIS
            };
            let y = (ROW.0 + ROW.1 * row as i32) * GRID;
            let (left, right) = (8 * GRID, 40 * GRID);
            area.draw(&PathElement::new(
                vec![(left, y), (right, y)],
                colour.stroke_width(2 * GRID as u32),
            ))
            .map_err(refused)?;
            if *marked {
                Marker::of(*series).draw_at(area, ((left + right) / 2, y), colour)?;
            }
            let shown: String = if name.chars().count() > 40 {
                name.chars().take(39).chain(['…']).collect()
            } else {
                name.clone()
            };
            write(area, &shown, (48, ROW.0 - 7 + ROW.1 * row as i32), 12)?;
        }
        Ok(())
    }
}
