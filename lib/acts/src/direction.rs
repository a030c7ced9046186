//! Directions in a container: the one reading of what `flowlens-pca --direction` writes and the tools that steer take.

use crate::{Error, File, Result, TensorSpec};

impl File {
    /// The unit direction of a layer, of this width: the tensor `direction.<layer>`, else the only tensor of that layer and
    /// width, else the tensor `direction` of a file that holds one for all layers.
    pub fn direction(&self, layer: usize, width: usize) -> Result<Vec<f64>> {
        let name = self.direction_name(layer, width)?;
        let refuse = |cause: String| Err(Error::NoDirection(format!("{name} {cause}")));
        let tensor = self.tensor(name)?;
        if self.row_count(tensor) != 1 {
            return refuse(format!("has {} rows, a direction is one", self.row_count(tensor)));
        }
        let values: Vec<f64> = match self.to_vec(tensor, 0..1) {
            Ok(values) => values,
            Err(_) => self.to_vec::<f32>(tensor, 0..1)?.into_iter().map(f64::from).collect(),
        };
        let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        if !norm.is_finite() || norm == 0.0 {
            return refuse(format!("has norm {norm}: no direction"));
        }
        Ok(values.into_iter().map(|x| x / norm).collect())
    }

    fn direction_name(&self, layer: usize, width: usize) -> Result<&str> {
        let fits = |spec: &&TensorSpec| match spec.row_shape[..] {
            [length] => usize::try_from(length) == Ok(width) && spec.name != "samples",
            _ => false,
        };
        let fitting: Vec<&str> = self
            .header()
            .tensors
            .iter()
            .filter(fits)
            .map(|spec| spec.name.as_str())
            .collect();
        let suffix = format!(".{layer}");
        let of_layer: Vec<&str> = fitting.iter().copied().filter(|name| name.ends_with(&suffix)).collect();
        let named = of_layer.iter().copied().find(|name| name.starts_with("direction"));
        match (named, of_layer.as_slice()) {
            (Some(name), _) => Ok(name),
            (None, [only]) => Ok(only),
            (None, []) if fitting.contains(&"direction") => Ok("direction"),
            (None, []) => Err(Error::NoDirection(format!(
                "no direction of width {width} for layer {layer}"
            ))),
            (None, several) => Err(Error::NoDirection(format!(
                "several tensors could be the direction of layer {layer}: {}",
                several.join(", ")
            ))),
        }
    }
}
