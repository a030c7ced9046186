//! Colours and markers that survive colour blindness and a black-and-white printer: the Okabe–Ito set without its yellow
//! (too pale on white), a marker shape per series besides, and viridis for depth and values.

use super::{Area, DrawError, GRID, refused};
use plotters::prelude::*;
use plotters::style::colors::colormaps::ViridisRGB;

pub const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
pub const AXIS: RGBColor = RGBColor(0x55, 0x55, 0x55);
pub const MESH: RGBColor = RGBColor(0xE4, 0xE4, 0xE4);

const SERIES: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xB2), // blue
    RGBColor(0xD5, 0x5E, 0x00), // vermillion
    RGBColor(0x00, 0x9E, 0x73), // bluish green
    RGBColor(0xCC, 0x79, 0xA7), // reddish purple
    RGBColor(0x00, 0x00, 0x00), // black
    RGBColor(0x56, 0xB4, 0xE9), // sky blue
    RGBColor(0xE6, 0x9F, 0x00), // orange
];

pub fn series(index: usize) -> RGBColor {
    SERIES[index % SERIES.len()]
}

/// Depth or value in 0..1; the palest tenth of the scale is left out, since it vanishes on white paper.
pub fn depth(value: f64) -> RGBColor {
    ViridisRGB.get_color(value.clamp(0.0, 1.0) as f32 * 0.92)
}

pub fn rgb(channels: [f64; 3]) -> RGBColor {
    let [r, g, b] = channels.map(|c| (c.clamp(0.0, 1.0) * 255.0).round() as u8);
    RGBColor(r, g, b)
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Marker {
    Disc,
    Square,
    Triangle,
    Ring,
    Cross,
}

impl Marker {
    pub fn of(series: usize) -> Self {
        [Self::Disc, Self::Square, Self::Triangle, Self::Ring, Self::Cross][series % 5]
    }

    /// Draws at grid coordinates of `area`.
    pub fn draw_at(self, area: &Area, at: (i32, i32), colour: RGBColor) -> Result<(), DrawError> {
        let r = 7 * GRID / 2;
        let (x, y) = at;
        match self {
            Self::Disc => area.draw(&Circle::new(at, r, colour.filled())),
            Self::Square => area.draw(&Rectangle::new([(x - r, y - r), (x + r, y + r)], colour.filled())),
            Self::Triangle => area.draw(&Polygon::new(
                vec![(x - r, y + r), (x + r, y + r), (x, y - r)],
                colour.filled(),
            )),
            Self::Ring => area
                .draw(&Circle::new(at, r, WHITE.filled()))
                .and_then(|()| area.draw(&Circle::new(at, r, colour.stroke_width(3 * GRID as u32 / 2)))),
            Self::Cross => [[(x - r, y - r), (x + r, y + r)], [(x - r, y + r), (x + r, y - r)]]
                .into_iter()
                .try_for_each(|line| area.draw(&PathElement::new(line.to_vec(), colour.stroke_width(2 * GRID as u32)))),
        }
        .map_err(refused)
    }
}
