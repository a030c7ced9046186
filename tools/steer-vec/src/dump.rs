//! Two groups of samples of one dump or two, and their rows at a site, a layer and a token position.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use acts::{File, OpenOptions};
use model::Site;
use process::{Error, Layers, Result, ResultExt};
use records::Sample;
use steering::Made;

use crate::cli::{DumpFlags, Of};

struct Dump {
    name: String,
    file: File,
    samples: Vec<Sample>,
}

/// Samples of one dump.
struct Side {
    dump: usize,
    samples: Vec<Sample>,
}

/// A tensor that both sides have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub site: Site,
    pub layer: usize,
}

/// As its tensor is called.
impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.site, self.layer)
    }
}

/// What is compared: samples that show something, and samples that do not.
pub struct Groups {
    dumps: Vec<Dump>,
    positive: Side,
    negative: Side,
    pub places: Vec<Place>,
    pub made: Made,
}

/// One row per sample of a side.
pub type Rows = Vec<Vec<f64>>;

impl Groups {
    pub fn open(flags: &DumpFlags) -> Result<Groups> {
        let dumps = flags
            .dumps
            .iter()
            .map(|path| Dump::open(path))
            .collect::<Result<Vec<_>>>()?;
        let (positive, negative) = sides(&dumps, flags)?;
        let places = places(&dumps, &flags.of)?;
        let made = made(&dumps)?;
        Ok(Groups {
            dumps,
            positive,
            negative,
            places,
            made,
        })
    }

    /// The length of the rows at a place.
    pub fn width(&self, place: Place) -> Result<usize> {
        let dump = &self.dumps[self.positive.dump];
        let elements = dump.file.spec(dump.tensor(place)?).and_then(|spec| spec.row_elements());
        elements.at(&dump.name).map(|count| count as usize)
    }

    /// The rows of both sides at a token position counted from the end of what was dumped, -1 being the last.
    pub fn rows(&self, place: Place, position: i64) -> Result<[Rows; 2]> {
        let of = |side: &Side| {
            let dump = &self.dumps[side.dump];
            side.samples
                .iter()
                .map(|sample| dump.row(place, sample, position))
                .collect::<Result<Rows>>()
        };
        Ok([of(&self.positive)?, of(&self.negative)?])
    }

    /// The rows of samples that are on both sides, joined by bench and id, in the order of the first.
    pub fn pairs(&self, place: Place, position: i64) -> Result<[Rows; 2]> {
        let key = |sample: &Sample| (sample.bench.clone(), sample.id.clone());
        let others: BTreeMap<_, &Sample> = self
            .negative
            .samples
            .iter()
            .map(|sample| (key(sample), sample))
            .collect();
        let (first, second) = (&self.dumps[self.positive.dump], &self.dumps[self.negative.dump]);
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for sample in &self.positive.samples {
            let other = others.get(&key(sample)).ok_or_else(|| {
                Error::input(
                    &second.name,
                    format!("has no sample {} to pair with that of {}", sample.id, first.name),
                )
            })?;
            left.push(first.row(place, sample, position)?);
            right.push(second.row(place, other, position)?);
        }
        match self.positive.samples.len() == self.negative.samples.len() {
            true => Ok([left, right]),
            false => Err(Error::input(
                &second.name,
                format!("has {} samples, and {} are to be paired", others.len(), left.len()),
            )),
        }
    }
}

/// All rows of dumps, whoever's they are.
pub struct Tensors {
    dumps: Vec<Dump>,
    pub places: Vec<Place>,
    pub made: Made,
}

impl Tensors {
    pub fn open(paths: &[std::path::PathBuf], of: &Of) -> Result<Tensors> {
        let dumps = paths.iter().map(|path| Dump::open(path)).collect::<Result<Vec<_>>>()?;
        let places = places(&dumps, of)?;
        let made = made(&dumps)?;
        Ok(Tensors { dumps, places, made })
    }

    /// The largest magnitude of each dimension at a place.
    pub fn largest(&self, place: Place) -> Result<Vec<f64>> {
        let mut largest = Vec::new();
        for dump in &self.dumps {
            let tensor = dump.tensor(place)?;
            let width = dump.file.spec(tensor).and_then(|spec| spec.row_elements());
            let width = width.at(&dump.name)? as usize;
            largest.resize(width, 0.0);
            if largest.len() != width {
                return Err(Error::input(
                    &dump.name,
                    format!("{place} has another width than in the others"),
                ));
            }
            let row_count = dump.file.row_count(tensor);
            for start in (0..row_count).step_by(ROWS) {
                process::signals::check()?;
                let end = row_count.min(start + ROWS as u64);
                let numbers: Vec<f32> = dump.file.to_vec(tensor, start..end).at(&dump.name)?;
                take_larger(&mut largest, &numbers);
            }
        }
        match largest.iter().all(|x| x.is_finite()) {
            true => Ok(largest),
            false => Err(Error::input(place, "holds what is not finite")),
        }
    }
}

/// Rows that are read together.
const ROWS: usize = 1024;

fn take_larger(largest: &mut [f64], rows: &[f32]) {
    for row in rows.chunks_exact(largest.len()) {
        for (largest, x) in largest.iter_mut().zip(row) {
            let magnitude = f64::from(x.abs());
            // what is no number stays, so that it is seen
            if magnitude > *largest || magnitude.is_nan() {
                *largest = magnitude;
            }
        }
    }
}

impl Dump {
    fn open(path: &Path) -> Result<Dump> {
        let name = path.display().to_string();
        let file = File::open(path, OpenOptions::default()).at(&name)?;
        let tensor = file.tensor("samples").at(&name)?;
        let bytes = file.to_bytes(tensor, 0..file.row_count(tensor)).at(&name)?;
        let samples: Vec<Sample> = records::table_rows(&bytes).at(&name)?;
        Ok(Dump { name, file, samples })
    }

    fn tensor(&self, place: Place) -> Result<usize> {
        self.file.tensor(&place.to_string()).at(&self.name)
    }

    fn row(&self, place: Place, sample: &Sample, position: i64) -> Result<Vec<f64>> {
        let refuse = |cause: String| Error::input(&self.name, format!("sample {}: {cause}", sample.id));
        let back = position.unsigned_abs();
        if back > sample.row_count {
            let cause = format!("has {} rows, none at position {position}", sample.row_count);
            return Err(refuse(cause).hint("dump more tokens (--positions all)"));
        }
        let row = (sample.row_start.checked_add(sample.row_count - back)).ok_or_else(|| refuse("overflows".into()))?;
        let numbers: Vec<f32> = self.file.to_vec(self.tensor(place)?, row..row + 1).at(&self.name)?;
        match numbers.iter().all(|x| x.is_finite()) {
            true => Ok(numbers.into_iter().map(f64::from).collect()),
            false => Err(refuse(format!("is not finite at {place}"))),
        }
    }

    fn places(&self) -> Vec<Place> {
        let of = |spec: &acts::TensorSpec| {
            Some(Place {
                site: spec.site?.name().parse().ok()?,
                layer: spec.layer_index? as usize,
            })
        };
        let tensors = self.file.header().tensors.iter();
        let activations = tensors.filter(|spec| spec.role == acts::Role::Activations);
        activations.filter_map(of).collect()
    }
}

fn sides(dumps: &[Dump], flags: &DumpFlags) -> Result<(Side, Side)> {
    let side = |dump: usize, flag: &str, group: Option<&String>| -> Result<Side> {
        let of_group = |sample: &&Sample| group.is_none_or(|group| sample.group == *group);
        let samples: Vec<Sample> = dumps[dump].samples.iter().filter(of_group).cloned().collect();
        match (samples.is_empty(), group) {
            (false, _) => Ok(Side { dump, samples }),
            (true, Some(group)) => Err(Error::input(
                &dumps[dump].name,
                format!("has no sample of {flag} {group:?}"),
            )),
            (true, None) => Err(Error::input(&dumps[dump].name, "has no sample")),
        }
    };
    let (positive, negative) = (flags.positive.as_ref(), flags.negative.as_ref());
    if dumps.len() == 1 && (positive.is_none() || negative.is_none() || positive == negative) {
        return Err(Error::usage(
            "--positive",
            "one dump needs two groups: --positive and --negative",
        ));
    }
    Ok((
        side(0, "--positive", positive)?,
        side(dumps.len() - 1, "--negative", negative)?,
    ))
}

/// What every dump has, at the sites and layers that are asked for.
fn places(dumps: &[Dump], of: &Of) -> Result<Vec<Place>> {
    let name = &dumps[0].name;
    let count = layer_count(&dumps[0])?;
    let layers = of.layers.as_ref().unwrap_or(&Layers::All).of(count);
    let layers = layers.map_err(|cause| Error::usage("--layers", cause))?;
    let all = dumps[0].places();
    let is_meant = |place: &Place| of.site.is_none_or(|site| site == place.site) && layers.contains(&place.layer);
    let places: Vec<Place> = all.into_iter().filter(is_meant).collect();
    if places.is_empty() {
        return Err(Error::input(name, "has no activations of such a site and layer"));
    }
    for dump in &dumps[1..] {
        let theirs = dump.places();
        if let Some(missing) = places.iter().find(|place| !theirs.contains(place)) {
            return Err(Error::input(&dump.name, format!("has no {missing}")));
        }
    }
    Ok(places)
}

fn layer_count(dump: &Dump) -> Result<usize> {
    let count = dump
        .file
        .header()
        .meta
        .get("layer_count")
        .and_then(serde_json::Value::as_u64);
    let count = count.and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| {
        Error::input(
            &dump.name,
            "does not say how many layers its model has (meta.layer_count)",
        )
    })
}

/// The model of the dumps: the same one in both.
fn made(dumps: &[Dump]) -> Result<Made> {
    let first = &dumps[0];
    let header = first.file.header();
    let is_residual = |spec: &&acts::TensorSpec| {
        use acts::Site::*;
        let site = spec.site;
        [
            Embed, ResidPre, ResidMid, ResidPost, AttnProj, AttnOut, MlpProj, MlpOut, FinalNorm,
        ]
        .map(Some)
        .contains(&site)
    };
    let residual = header
        .tensors
        .iter()
        .find(is_residual)
        .and_then(|spec| spec.row_shape.first());
    let width = residual.and_then(|&width| usize::try_from(width).ok());
    let made = Made {
        model_digest: header.model_digest.clone(),
        family: header
            .meta
            .get("family")
            .and_then(|family| family.as_str())
            .map(str::to_owned),
        layer_count: layer_count(first)?,
        width: width.ok_or_else(|| {
            Error::input(&first.name, "has no tensor as wide as the residual stream")
                .hint("dump resid_post beside the site that is meant, and name that with --site")
        })?,
    };
    for dump in &dumps[1..] {
        if dump.file.header().model_digest != made.model_digest {
            return Err(Error::input(
                &dump.name,
                format!("is of another model than {}", first.name),
            ));
        }
    }
    Ok(made)
}
