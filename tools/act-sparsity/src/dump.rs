//! The activations: containers of one run, and evenly spaced rows of their tensors.

use std::path::PathBuf;

use acts::{File, OpenOptions, Role};
use model::{Checkpoint, Point, Site};
use ndarray::Array2;
use process::{Error, Result, ResultExt};

struct Part {
    name: String,
    file: File,
}

pub struct Dump {
    parts: Vec<Part>,
    /// At most so many rows are looked at.
    row_count_max: u64,
}

impl Dump {
    pub fn open(paths: &[PathBuf], row_count_max: u32) -> Result<Dump> {
        let open = |path: &PathBuf| {
            let name = path.display().to_string();
            let file = File::open(path, OpenOptions::default()).at(&name)?;
            Ok(Part { name, file })
        };
        Ok(Dump {
            parts: paths.iter().map(open).collect::<Result<_>>()?,
            row_count_max: row_count_max.into(),
        })
    }

    pub fn name(&self) -> &str {
        &self.parts[0].name
    }

    /// Refuses activations of another model: thresholds would be those of other numbers.
    pub fn check_model(&self, checkpoint: &Checkpoint, allow_other: bool) -> Result<()> {
        for part in &self.parts {
            match &part.file.header().model_digest {
                Some(theirs) if theirs != checkpoint.digest() && !allow_other => {
                    let cause = format!("is of the model {theirs}, --model is {}", checkpoint.digest());
                    return Err(Error::input(&part.name, cause).hint("--allow-other-model takes it all the same"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The points of these sites that it holds, those of one site together.
    pub fn points(&self, sites: &[Site]) -> Vec<Point> {
        let mut points: Vec<Point> = self.parts[0]
            .file
            .header()
            .tensors
            .iter()
            .filter(|spec| spec.role == Role::Activations)
            .filter_map(|spec| Some(Point::new(spec.site?.name().parse().ok()?, spec.layer_index? as usize)))
            .filter(|point| sites.contains(&point.site))
            .collect();
        points.sort_by_key(|point| (point.site, point.layer));
        points
    }

    /// Refuses a point that is missing, of another width than the model's, without rows, or with numbers that are not finite.
    pub fn check(&self, point: Point, width: usize) -> Result<()> {
        let mut total = 0;
        for part in &self.parts {
            let refuse = |cause: String| Error::input(format!("{}: {point}", part.name), cause);
            let Some(tensor) = part.file.header().tensor_index(&point.to_string()) else {
                let refusal = refuse("is not there, and is needed".into());
                return Err(refusal.hint(format!("dump {} beside the others (resid-dump --sites)", point.site)));
            };
            let found = part
                .file
                .spec(tensor)
                .and_then(|spec| spec.row_elements())
                .at(&part.name)?;
            if found != width as u64 {
                return Err(refuse(format!("has rows of {found}, the model's are of {width}")));
            }
            let counts = part.file.summary(tensor).at(&part.name)?.non_finite;
            if counts.nan_count + counts.inf_count > 0 {
                let count = counts.nan_count + counts.inf_count;
                return Err(refuse(format!("{count} numbers are NaN or infinite")));
            }
            total += part.file.row_count(tensor);
        }
        match total {
            0 => Err(Error::input(self.name(), format!("{point} has no rows"))),
            _ => Ok(()),
        }
    }

    /// What its rows at these points come from.
    pub fn digest(&self, points: &[Point]) -> Result<String> {
        let mut contents = String::new();
        for part in &self.parts {
            for point in points {
                let tensor = part.file.tensor(&point.to_string()).at(&part.name)?;
                let digest = part.file.summary(tensor).at(&part.name)?.content_digest;
                contents += &format!("{point} {}\n", process::hex(&digest));
            }
        }
        Ok(process::sha256(contents.as_bytes()))
    }

    /// Rows of a point, evenly spaced over all parts; (rows, width).
    pub fn rows(&self, point: Point) -> Result<Array2<f64>> {
        let name = point.to_string();
        let tensor = |part: &Part| part.file.tensor(&name).at(&part.name);
        let mut numbers = Vec::new();
        let mut counts = Vec::new();
        for part in &self.parts {
            counts.push(part.file.row_count(tensor(part)?));
        }
        let total: u64 = counts.iter().sum();
        let chosen = total.min(self.row_count_max);
        let mut width = 0;
        let mut first = 0;
        for (part, count) in self.parts.iter().zip(counts) {
            let index = tensor(part)?;
            let spaced = (0..chosen).map(|at| (u128::from(at) * u128::from(total) / u128::from(chosen)) as u64);
            let rows: Vec<u64> = spaced
                .filter(|row| (first..first + count).contains(row))
                .map(|row| row - first)
                .collect();
            width = part
                .file
                .spec(index)
                .and_then(|spec| spec.row_elements())
                .at(&part.name)? as usize;
            let mut out = vec![0f32; rows.len() * width];
            part.file.gather(index, &rows, &mut out).at(&part.name)?;
            numbers.extend(out.into_iter().map(f64::from));
            first += count;
        }
        Array2::from_shape_vec((numbers.len() / width.max(1), width), numbers).map_err(|cause| Error::bug(name, cause))
    }

    /// How many rows are looked at.
    pub fn row_count(&self, point: Point) -> Result<u64> {
        let counts = self.parts.iter().map(|part| {
            let tensor = part.file.tensor(&point.to_string()).at(&part.name)?;
            Ok(part.file.row_count(tensor))
        });
        Ok(counts.sum::<Result<u64>>()?.min(self.row_count_max))
    }
}
