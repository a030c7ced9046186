//! A basis that was saved by `--basis`, read back for `--against`.

use acts::Role;
use numerics::spectrum;
use process::{Error, Result, ResultExt};
use std::path::Path;

/// A fitted basis, as saved by `--basis`.
pub struct Basis {
    pub name: String,
    pub digest: String,
    pub mean: Vec<f64>,
    /// (components, width).
    pub components: Vec<f64>,
    /// (layer, mean, components) where it was fitted per layer too.
    pub layers: Vec<(u32, Vec<f64>, Vec<f64>)>,
    /// The component whose number is the intrinsic dimension.
    pub component_id: Option<usize>,
}

impl Basis {
    /// `None` where the container holds no basis.
    pub fn read(path: &Path, no_map: bool) -> Result<Option<Self>> {
        if path == Path::new("-") {
            return Err(Error::usage("-", "stdin is an input, not what it is compared with"));
        }
        let name = path.display().to_string();
        let options = acts::OpenOptions {
            map: !no_map,
            ..acts::OpenOptions::default()
        };
        let file = acts::File::open(path, options).at(&name)?;
        let mut tensors = file.header().tensors.iter();
        if !tensors.any(|spec| spec.role == Role::Basis && spec.name.starts_with("basis.")) {
            return Ok(None);
        }
        let read = |tensor: &str| -> Result<Vec<f64>> {
            let index = file.tensor(tensor).at(&name)?;
            file.to_vec::<f64>(index, 0..file.row_count(index)).at(&name)
        };
        let mut layers = Vec::new();
        for spec in &file.header().tensors {
            if let Some(layer) = spec
                .name
                .strip_prefix("basis.")
                .and_then(|rest| rest.strip_suffix(".mean"))
                && let Ok(layer) = layer.parse::<u32>()
            {
                layers.push((layer, read(&spec.name)?, read(&format!("basis.{layer}.components"))?));
            }
        }
        // A basis of the concatenated layout lives in its layers alone.
        let (mean, components) = match file.tensor("basis.mean") {
            Ok(_) => (read("basis.mean")?, read("basis.components")?),
            Err(_) => (Vec::new(), Vec::new()),
        };
        let component_id = file
            .header()
            .meta
            .get("component_id")
            .and_then(serde_json::Value::as_u64);
        Ok(Some(Self {
            digest: file.header().plan_digest.clone().unwrap_or_default(),
            name,
            mean,
            components,
            layers,
            component_id: component_id.and_then(|id| usize::try_from(id).ok()),
        }))
    }

    /// Saved components in the dimensions that are kept now, if the basis has the width of the input.
    pub fn narrowed(&self, components: &[f64], width: usize, columns: Option<&[usize]>) -> Result<Vec<f64>> {
        self.check_width(width)?;
        let Some(columns) = columns else {
            return Ok(components.to_vec());
        };
        let mut kept: Vec<f64> = components
            .chunks_exact(width)
            .flat_map(|row| columns.iter().map(|column| row[*column]))
            .collect();
        spectrum::normalise(&mut kept, columns.len());
        Ok(kept)
    }

    fn check_width(&self, width: usize) -> Result<()> {
        let layers = self.layers.iter().map(|(_, mean, _)| mean.len());
        let whole = (!self.mean.is_empty()).then_some(self.mean.len());
        match layers.chain(whole).find(|other| *other != width) {
            Some(other) => Err(Error::input(
                &self.name,
                format!("is a basis of {other} dimensions, the input has {width}"),
            )),
            None => Ok(()),
        }
    }
}
