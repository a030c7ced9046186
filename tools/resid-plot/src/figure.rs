//! What a figure is before it is drawn: panels, axes and marks in data units. Pure data: nothing here knows about pixels,
//! colours or files, so every figure can be tested without looking at a picture.

/// One picture: panels on a grid, with a caption that says how to read it.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub kind: &'static str,
    pub title: String,
    pub caption: String,
    pub panels: Vec<Panel>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub marks: Vec<Mark>,
    /// Present when colour means depth rather than a series.
    pub colour_bar: Option<String>,
}

/// An axis names what it shows and its unit ("" when the quantity has none).
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    pub name: String,
    pub unit: &'static str,
    pub scale: Scale,
    /// Forced limits; otherwise the data decide.
    pub range: Option<(f64, f64)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Scale {
    Linear,
    Log10,
    /// Whole numbers: ticks at integers only.
    Count,
    /// Named rows, drawn top down at 0, 1, 2, ….
    Category(Vec<String>),
}

/// A series keeps one colour and one marker over all panels of a figure: `series` is its index, `name` its legend entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Mark {
    Line {
        name: String,
        series: usize,
        points: Vec<(f64, f64)>,
        weight: Weight,
    },
    /// (x, low, high)
    Band {
        series: usize,
        points: Vec<(f64, f64, f64)>,
    },
    Points {
        name: String,
        series: usize,
        points: Vec<(f64, f64)>,
    },
    /// (position on the category axis, low, value, high)
    Interval {
        name: String,
        series: usize,
        points: Vec<(f64, f64, f64, f64)>,
    },
    /// A path whose colour is its depth in 0..1. `name` stands at its deep end.
    Path {
        name: String,
        series: usize,
        points: Vec<Depth2>,
    },
    /// The same path in three dimensions, drawn in a turned box.
    Space { axis_names: [String; 3], paths: Vec<Path3> },
    /// Cells over the panel's ranges, row 0 at the bottom; each a colour.
    Cells { columns: usize, rows: Vec<Cell> },
    /// A labelled position.
    Label { text: String, at: (f64, f64) },
}

/// A named path through three dimensions: places and their depths.
#[derive(Debug, Clone, PartialEq)]
pub struct Path3 {
    pub name: String,
    pub points: Vec<([f64; 3], f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Depth2 {
    pub at: (f64, f64),
    pub depth: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell {
    /// Red, green, blue in 0..1.
    Rgb([f64; 3]),
    /// A value in 0..1 on the sequential scale.
    Value(f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weight {
    /// With a marker at every point.
    Marked,
    Plain,
    /// Background: one of many curves, not in the legend.
    Faint,
}

impl Axis {
    pub fn new(name: impl Into<String>, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            unit,
            scale: Scale::Linear,
            range: None,
        }
    }

    pub fn scaled(mut self, scale: Scale) -> Self {
        self.scale = scale;
        self
    }

    pub fn within(mut self, low: f64, high: f64) -> Self {
        self.range = Some((low, high));
        self
    }

    /// A value on it, or the name of a row.
    pub fn says(&self, value: f64) -> String {
        match &self.scale {
            Scale::Category(names) => names.get(value as usize).cloned().unwrap_or_default(),
            _ => short(value, 3),
        }
    }

    pub fn label(&self) -> String {
        match self.unit {
            "" => self.name.clone(),
            unit => format!("{} [{unit}]", self.name),
        }
    }
}

/// A number to four digits, without zeros at its end; beyond everyday sizes with an exponent, and so many digits before that.
pub fn short(value: f64, digits: usize) -> String {
    let size = value.abs();
    if size < 1e-12 {
        return "0".to_owned();
    }
    if !(1e-3..1e5).contains(&size) {
        return format!("{value:.digits$e}");
    }
    let decimals = (3 - size.log10().floor() as i32).clamp(0, 5) as usize;
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

impl Panel {
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self {
            title: title.into(),
            x,
            y,
            marks: Vec::new(),
            colour_bar: None,
        }
    }

    /// A point of it in words: `layer 12, C_4 0.231`.
    pub fn says(&self, (x, y): (f64, f64)) -> String {
        format!("{} {}, {} {}", self.x.name, self.x.says(x), self.y.name, self.y.says(y))
    }

    /// The extent of all marks in (x, y), in data units; `None` when nothing finite is drawn.
    pub fn extent(&self) -> Option<((f64, f64), (f64, f64))> {
        let mut x = Extent::default();
        let mut y = Extent::default();
        for mark in &self.marks {
            match mark {
                Mark::Line { points, .. } | Mark::Points { points, .. } => {
                    points.iter().for_each(|p| (x.add(p.0), y.add(p.1)).1)
                }
                Mark::Band { points, .. } => points.iter().for_each(|p| {
                    x.add(p.0);
                    y.add(p.1);
                    y.add(p.2);
                }),
                Mark::Interval { points, .. } => points.iter().for_each(|p| {
                    y.add(p.0);
                    x.add(p.1);
                    x.add(p.3);
                }),
                Mark::Path { points, .. } => points.iter().for_each(|p| {
                    x.add(p.at.0);
                    y.add(p.at.1);
                }),
                Mark::Label { at, .. } => {
                    x.add(at.0);
                    y.add(at.1);
                }
                Mark::Space { .. } | Mark::Cells { .. } => {}
            }
        }
        Some((self.x.range.or(x.get())?, self.y.range.or(y.get())?))
    }
}

#[derive(Default)]
struct Extent(Option<(f64, f64)>);

impl Extent {
    fn add(&mut self, value: f64) {
        if value.is_finite() {
            let (low, high) = self.0.unwrap_or((value, value));
            self.0 = Some((low.min(value), high.max(value)));
        }
    }

    fn get(&self) -> Option<(f64, f64)> {
        self.0
    }
}
