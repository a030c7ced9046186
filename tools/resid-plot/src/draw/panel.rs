//! One panel: axes with names and units, then its marks. Values on a logarithmic axis are drawn as powers of ten of a
//! linear one, which keeps one chart type for every figure. What was drawn where is handed back, so that it can be asked.

use super::palette::{self, Marker};
use super::spots::Spot;
use super::{Area, DrawError, FONT, GRID, refused, style};
use crate::figure::{Cell, Mark, Panel, Path3, Scale, Weight, short};
use plotters::coord::ranged1d::{BoldPoints, DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Ticked, Ticked>>;

pub fn draw(area: &Area, panel: &Panel) -> Result<Vec<Spot>, DrawError> {
    let (area, bar) = match &panel.colour_bar {
        Some(_) => {
            let (width, _) = area.dim_in_pixel();
            area.split_horizontally(width as i32 - 74 * GRID)
        }
        None => (area.clone(), area.clone()),
    };
    if let Some(name) = &panel.colour_bar {
        colour_bar(&bar, name)?;
    }
    if let Some(Mark::Space { axis_names, paths }) = panel.marks.iter().find(|m| matches!(m, Mark::Space { .. })) {
        space(&area, panel, axis_names, paths)?;
        return Ok(Vec::new());
    }
    let Some((x, y)) = panel.extent() else {
        return Err(refused(format!("the panel \"{}\" has nothing to draw", panel.title)));
    };
    let x = limits(x, &panel.x.scale, panel.x.range.is_some());
    let y = limits(y, &panel.y.scale, panel.y.range.is_some());
    let label_width = match &panel.y.scale {
        Scale::Category(names) => 16 + 7 * names.iter().map(|n| n.chars().count()).max().unwrap_or(0) as i32,
        _ => 62,
    };
    let mut chart: Chart = ChartBuilder::on(&area)
        .margin(10 * GRID)
        .margin_right(18 * GRID)
        .caption(&panel.title, style(14))
        .x_label_area_size(46 * GRID)
        .y_label_area_size(label_width * GRID)
        .build_cartesian_2d(ticked(x, &panel.x.scale), ticked(y, &panel.y.scale))
        .map_err(refused)?;
    axes(&mut chart, panel)?;
    if let Scale::Category(names) = &panel.y.scale {
        category_names(&chart, &area, names, x)?;
    }
    for mark in &panel.marks {
        self::mark(&mut chart, &area, panel, mark, x, y)?;
    }
    Ok(spots(&chart, panel))
}

/// The points of every named series: where they lie in the picture, and what they say.
fn spots(chart: &Chart, panel: &Panel) -> Vec<Spot> {
    let spot = |name: &str, at: (f64, f64), text: String| {
        let (x, y) = (place(at.0, &panel.x.scale), place(at.1, &panel.y.scale));
        (x.is_finite() && y.is_finite()).then(|| Spot::new(chart.backend_coord(&(x, y)), name, text))
    };
    let pair = |name: &str, at: (f64, f64)| spot(name, at, panel.says(at));
    let of_mark = |mark: &Mark| -> Vec<Option<Spot>> {
        match mark {
            Mark::Line {
                weight: Weight::Faint, ..
            } => Vec::new(),
            Mark::Line { name, points, .. } | Mark::Points { name, points, .. } => {
                points.iter().map(|at| pair(name, *at)).collect()
            }
            Mark::Path { name, points, .. } => points.iter().map(|point| pair(name, point.at)).collect(),
            Mark::Interval { name, points, .. } => {
                let within = |&(row, low, value, high): &(f64, f64, f64, f64)| {
                    let text = format!(
                        "{} [{}, {}]",
                        panel.x.says(value),
                        panel.x.says(low),
                        panel.x.says(high)
                    );
                    spot(name, (value, row), text)
                };
                points.iter().map(within).collect()
            }
            Mark::Band { .. } | Mark::Cells { .. } | Mark::Label { .. } | Mark::Space { .. } => Vec::new(),
        }
    };
    panel.marks.iter().flat_map(of_mark).flatten().collect()
}

fn place(value: f64, scale: &Scale) -> f64 {
    match scale {
        Scale::Log10 => value.log10(),
        Scale::Category(_) => -value,
        Scale::Linear | Scale::Count => value,
    }
}

/// Axis limits in drawing units, with a little air unless they were given.
fn limits(extent: (f64, f64), scale: &Scale, given: bool) -> (f64, f64) {
    if let Scale::Category(names) = scale {
        return (-(names.len() as f64) + 0.4, 0.6);
    }
    let (low, high) = (place(extent.0, scale), place(extent.1, scale));
    let air = match (given, high - low) {
        (true, _) => 0.0,
        (false, span) if span > 0.0 => span * 0.04,
        (false, _) => (high.abs() * 0.1).max(0.5),
    };
    (low - air, high + air)
}

const TICKS: usize = 7;

/// A linear range with ticks of its own.
#[derive(Clone)]
struct Ticked {
    plain: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Ranged for Ticked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.plain.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.plain.range()
    }
}

/// A range with its ticks, where the numbers that they stand for are round.
fn ticked((low, high): (f64, f64), scale: &Scale) -> Ticked {
    let plain = RangedCoordf64::from(low..high);
    let ticks = match scale {
        Scale::Log10 => decades(low, high),
        Scale::Category(_) => Vec::new(),
        Scale::Linear | Scale::Count => plain.key_points(BoldPoints(TICKS)),
    };
    Ticked { plain, ticks }
}

/// Logarithms of whole powers of ten, where fewer than three of them fit of their doubles and fivefolds too, and of round numbers between
/// values so near each other that hardly one of those lies there.
fn decades(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.floor() as i32, high.ceil() as i32);
    let is_inside = |at: &f64| (low..=high).contains(at);
    let whole: Vec<f64> = (first..=last).map(f64::from).filter(is_inside).collect();
    if whole.len() >= 3 {
        return whole.iter().step_by(whole.len().div_ceil(TICKS)).copied().collect();
    }
    let between = (first..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|part: f64| f64::from(power) + part.log10()));
    let between: Vec<f64> = between.filter(is_inside).collect();
    if between.len() >= 2 {
        return between;
    }
    let plain = RangedCoordf64::from(10f64.powf(low)..10f64.powf(high));
    plain
        .key_points(BoldPoints(TICKS))
        .into_iter()
        .map(f64::log10)
        .collect()
}

fn axes(chart: &mut Chart, panel: &Panel) -> Result<(), DrawError> {
    let x_number = |v: &f64| number(*v, &panel.x.scale);
    let y_number = |v: &f64| number(*v, &panel.y.scale);
    let categories = matches!(panel.y.scale, Scale::Category(_));
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(panel.x.label())
        .y_desc(panel.y.label())
        .axis_desc_style(style(12))
        .label_style(style(11))
        .x_labels(TICKS)
        .y_labels(if categories { 0 } else { TICKS })
        .x_label_formatter(&x_number)
        .y_label_formatter(&y_number)
        .max_light_lines(1)
        .light_line_style(WHITE.mix(0.0))
        .bold_line_style(palette::MESH.stroke_width(GRID as u32))
        .axis_style(palette::AXIS.stroke_width(GRID as u32))
        .set_all_tick_mark_size(4 * GRID);
    if categories {
        mesh.disable_y_mesh().disable_y_axis();
    }
    mesh.draw().map_err(refused)
}

/// A tick's text: short, and exact for the round values that ticks have. Whole-number axes leave other ticks bare.
fn number(value: f64, scale: &Scale) -> String {
    let value = match scale {
        Scale::Log10 => 10f64.powf(value),
        Scale::Count if (value - value.round()).abs() > 1e-9 => return String::new(),
        _ => value,
    };
    short(value, 0)
}

fn mark(
    chart: &mut Chart,
    area: &Area,
    panel: &Panel,
    mark: &Mark,
    x: (f64, f64),
    y: (f64, f64),
) -> Result<(), DrawError> {
    let at = |p: (f64, f64)| (place(p.0, &panel.x.scale), place(p.1, &panel.y.scale));
    let visible = |p: &(f64, f64)| p.0.is_finite() && p.1.is_finite();
    match mark {
        Mark::Line {
            series, points, weight, ..
        } => {
            let colour = palette::series(*series);
            let line = match weight {
                Weight::Faint => colour.mix(0.25).stroke_width(GRID as u32),
                _ => colour.stroke_width(2 * GRID as u32),
            };
            let path: Vec<(f64, f64)> = points.iter().copied().map(at).filter(visible).collect();
            chart
                .draw_series(std::iter::once(PathElement::new(path.clone(), line)))
                .map_err(refused)?;
            if *weight == Weight::Marked {
                markers(chart, area, &path, *series)?;
            }
        }
        Mark::Points { series, points, .. } => {
            let path: Vec<(f64, f64)> = points.iter().copied().map(at).filter(visible).collect();
            markers(chart, area, &path, *series)?;
        }
        Mark::Band { series, points } => {
            let lower = points.iter().map(|p| at((p.0, p.1)));
            let upper = points.iter().rev().map(|p| at((p.0, p.2)));
            let outline: Vec<(f64, f64)> = lower.chain(upper).filter(visible).collect();
            chart
                .draw_series(std::iter::once(Polygon::new(
                    outline,
                    palette::series(*series).mix(0.18).filled(),
                )))
                .map_err(refused)?;
        }
        Mark::Interval { series, points, .. } => {
            let colour = palette::series(*series);
            for &(row, low, value, high) in points {
                let ends = vec![at((low, row)), at((high, row))];
                chart
                    .draw_series(std::iter::once(PathElement::new(
                        ends,
                        colour.stroke_width(2 * GRID as u32),
                    )))
                    .map_err(refused)?;
                markers(chart, area, &[at((value, row))], *series)?;
            }
        }
        Mark::Path { series, points, .. } => {
            for pair in points.windows(2) {
                let line = vec![at(pair[0].at), at(pair[1].at)];
                let colour = palette::depth((pair[0].depth + pair[1].depth) / 2.0);
                chart
                    .draw_series(std::iter::once(PathElement::new(
                        line,
                        colour.stroke_width(2 * GRID as u32),
                    )))
                    .map_err(refused)?;
            }
            for point in points {
                Marker::of(*series).draw_at(area, local(chart, area, at(point.at)), palette::depth(point.depth))?;
            }
        }
        Mark::Cells { columns, rows } => cells(chart, *columns, rows, x, y)?,
        Mark::Label { text, at: place } => label(chart, area, text, at(*place))?,
        Mark::Space { .. } => {}
    }
    Ok(())
}

/// Where a data point lies in the panel's own grid (the chart answers in the picture's).
fn local(chart: &Chart, area: &Area, point: (f64, f64)) -> (i32, i32) {
    let (x, y) = chart.backend_coord(&point);
    let (columns, rows) = area.get_pixel_range();
    (x - columns.start, y - rows.start)
}

fn markers(chart: &Chart, area: &Area, points: &[(f64, f64)], series: usize) -> Result<(), DrawError> {
    points
        .iter()
        .try_for_each(|point| Marker::of(series).draw_at(area, local(chart, area, *point), palette::series(series)))
}

/// A letter on a white disc, readable on any colour.
fn label(chart: &Chart, area: &Area, text: &str, point: (f64, f64)) -> Result<(), DrawError> {
    let (x, y) = local(chart, area, point);
    let centred = style(11).pos(Pos::new(HPos::Center, VPos::Center));
    area.draw(&Circle::new((x, y), 9 * GRID, WHITE.filled()))
        .map_err(refused)?;
    area.draw_text(text, &centred, (x, y)).map_err(refused)
}

fn category_names(chart: &Chart, area: &Area, names: &[String], x: (f64, f64)) -> Result<(), DrawError> {
    let anchored = style(11).pos(Pos::new(HPos::Right, VPos::Center));
    for (row, name) in names.iter().enumerate() {
        let (left, middle) = local(chart, area, (x.0, -(row as f64)));
        area.draw_text(name, &anchored, (left - 8 * GRID, middle))
            .map_err(refused)?;
    }
    Ok(())
}

fn cells(chart: &mut Chart, columns: usize, cells: &[Cell], x: (f64, f64), y: (f64, f64)) -> Result<(), DrawError> {
    let rows = cells.len() / columns;
    let edge =
        |range: (f64, f64), index: usize, count: usize| range.0 + (range.1 - range.0) * index as f64 / count as f64;
    chart
        .draw_series(cells.iter().enumerate().map(|(index, cell)| {
            let (row, column) = (index / columns, index % columns);
            let colour = match cell {
                Cell::Rgb(channels) => palette::rgb(*channels),
                Cell::Value(value) => palette::depth(*value),
            };
            let corners = [
                (edge(x, column, columns), edge(y, row, rows)),
                (edge(x, column + 1, columns), edge(y, row + 1, rows)),
            ];
            Rectangle::new(corners, colour.filled())
        }))
        .map_err(refused)?;
    Ok(())
}

fn colour_bar(area: &Area, name: &str) -> Result<(), DrawError> {
    let (_, height) = area.dim_in_pixel();
    let (top, bottom) = (34 * GRID, height as i32 - 58 * GRID);
    let steps = 64;
    for step in 0..steps {
        let edge = |s: i32| bottom - (bottom - top) * s / steps;
        let colour = palette::depth(f64::from(step) / f64::from(steps - 1));
        area.draw(&Rectangle::new(
            [(4 * GRID, edge(step + 1)), (18 * GRID, edge(step))],
            colour.filled(),
        ))
        .map_err(refused)?;
    }
    for (text, y) in [("1", top), ("0.5", (top + bottom) / 2), ("0", bottom)] {
        area.draw_text(text, &style(11), (23 * GRID, y - 6 * GRID))
            .map_err(refused)?;
    }
    let turned = (FONT, 12 * GRID)
        .into_font()
        .transform(FontTransform::Rotate90)
        .color(&palette::INK);
    area.draw_text(
        name,
        &turned.pos(Pos::new(HPos::Center, VPos::Center)),
        (54 * GRID, (top + bottom) / 2),
    )
    .map_err(refused)
}

/// A turned box with its three axes named; the colour of a path is its depth.
fn space(area: &Area, panel: &Panel, axis_names: &[String; 3], paths: &[Path3]) -> Result<(), DrawError> {
    let mut low = [f64::INFINITY; 3];
    let mut high = [f64::NEG_INFINITY; 3];
    for (point, _) in paths.iter().flat_map(|path| &path.points) {
        for axis in 0..3 {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    let range = |axis: usize| {
        let air = ((high[axis] - low[axis]) * 0.06).max(1e-6);
        (low[axis] - air)..(high[axis] + air)
    };
    let mut chart = ChartBuilder::on(area)
        .margin(10 * GRID)
        .margin_left(30 * GRID)
        .caption(&panel.title, style(14))
        .build_cartesian_3d(range(0), range(1), range(2))
        .map_err(refused)?;
    chart.with_projection(|mut projection| {
        projection.yaw = 0.75;
        projection.pitch = 0.28;
        projection.scale = 0.78;
        projection.into_matrix()
    });
    let tick = |v: &f64| number(*v, &Scale::Linear);
    chart
        .configure_axes()
        .x_labels(4)
        .y_labels(4)
        .z_labels(4)
        .label_style(style(10))
        .light_grid_style(WHITE.mix(0.0))
        .bold_grid_style(palette::MESH.stroke_width(GRID as u32))
        .axis_panel_style(WHITE.mix(0.0))
        .x_formatter(&tick)
        .y_formatter(&tick)
        .z_formatter(&tick)
        .draw()
        .map_err(refused)?;
    let middle = |axis: usize| (low[axis] + high[axis]) / 2.0;
    let (x, y, z) = (range(0), range(1), range(2));
    let beyond = |r: &Range<f64>, share: f64| r.start + (r.end - r.start) * share;
    let places = [
        (axis_names[0].clone(), (middle(0), y.start, beyond(&z, 1.22))),
        (axis_names[1].clone(), (x.start, beyond(&y, 1.08), z.start)),
        (axis_names[2].clone(), (beyond(&x, 1.22), y.start, middle(2))),
    ];
    chart
        .draw_series(
            places
                .into_iter()
                .map(|(name, at)| Text::new(name, at, style(12).pos(Pos::new(HPos::Center, VPos::Center)))),
        )
        .map_err(refused)?;
    for (series, Path3 { points, .. }) in paths.iter().enumerate() {
        let at = |p: &([f64; 3], f64)| (p.0[0], p.0[1], p.0[2]);
        for pair in points.windows(2) {
            let colour = palette::depth((pair[0].1 + pair[1].1) / 2.0);
            chart
                .draw_series(std::iter::once(PathElement::new(
                    vec![at(&pair[0]), at(&pair[1])],
                    colour.stroke_width(2 * GRID as u32),
                )))
                .map_err(refused)?;
        }
        let (columns, rows) = area.get_pixel_range();
        for point in points {
            let (x, y) = chart.plotting_area().map_coordinate(&at(point));
            Marker::of(series).draw_at(area, (x - columns.start, y - rows.start), palette::depth(point.1))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(low: f64, high: f64) -> Vec<String> {
        let ticks = decades(low.log10(), high.log10());
        ticks.iter().map(|tick| number(*tick, &Scale::Log10)).collect()
    }

    #[test]
    fn ticks_of_a_logarithmic_axis_are_round() {
        assert_eq!(texts(0.0006, 0.7), ["0.001", "0.01", "0.1"]);
        assert_eq!(texts(0.02, 0.7), ["0.02", "0.05", "0.1", "0.2", "0.5"]);
        assert_eq!(texts(3.1, 3.9), ["3.2", "3.4", "3.6", "3.8"]);
        assert_eq!(texts(1.0, 90_000.0), ["1", "10", "100", "1000", "10000"]);
    }
}
