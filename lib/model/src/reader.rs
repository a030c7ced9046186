//! What reads a site: the matrix that multiplies its rows, as a checkpoint stores it.

use candle_core::{DType, Device, Tensor};

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::taps::{Point, Site};

impl Config {
    /// The parameter that multiplies the rows of a site, where one matrix alone does. The activated gate reaches it through the product
    /// with `mlp_up`.
    fn reader(&self, point: Point) -> Option<String> {
        let names = &self.names;
        let part = match point.site {
            Site::AttnIn => names.attn_out,
            Site::MlpIn | Site::MlpAct => names.mlp_out,
            _ => return None,
        };
        Some(format!("{}.weight", names.in_block(point.layer, part)))
    }
}

impl Checkpoint {
    /// The matrix (out, in) that reads a site, in f32, without loading the model.
    pub fn reader(&self, point: Point) -> Result<Tensor> {
        let refuse = || Error::Site(format!("{point} is not what one matrix multiplies"));
        let config = self.config();
        let name = config.reader(point).ok_or_else(refuse)?;
        let shape = [config.hidden_size, point.site.width(config)];
        let tensor = match config.names.transposed {
            true => self.weight(&name, &[shape[1], shape[0]])?.t()?,
            false => self.weight(&name, &shape)?,
        };
        let tensor = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        Ok(tensor.contiguous()?)
    }
}
