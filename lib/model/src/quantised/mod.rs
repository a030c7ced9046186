//! Checkpoints whose matrices are kept in 8 or 4 bits, dequantised as they are loaded.

pub(crate) mod bits;
mod fp8;
mod mxfp4;
mod packed;
mod table;

use std::borrow::Cow;

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::safetensors::{Raw, Safetensors};
use crate::weights::Source;
use packed::Packing;

/// How the matrices of a checkpoint are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scheme {
    /// Eight-bit floats, times one scale for all, for each row or for each block.
    Fp8 { block: Option<[usize; 2]> },
    /// Numbers of 4 bits into a table, times one scale for each run (bitsandbytes).
    Table,
    /// Integers less a zero point, times a scale, both by groups of inputs (GPTQ, AWQ).
    Packed(Packing),
    /// Floats of 4 bits, times a power of two for each 32 inputs; of the matrices of experts alone (gpt-oss).
    Mxfp4,
}

/// What may stand beside a matrix, behind the name of its module.
const COMPANIONS: [&str; 15] = [
    "weight_scale_inv",
    "weight_scale",
    "input_scale",
    "activation_scale",
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "weight.absmax",
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    "weight.quant_state.bitsandbytes__nf4",
    "weight.quant_state.bitsandbytes__fp4",
    "weight",
];

impl Scheme {
    /// What `quantization_config` says, which is taken out: without it the config is that of the dequantised model.
    pub fn take(config: &mut Map<String, Value>) -> Result<Option<Self>> {
        match config.get("quantization_config") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(said)) => {
                let scheme = Self::of(said)?;
                config.remove("quantization_config");
                Ok(Some(scheme))
            }
            Some(_) => Err(Error::Config("quantization_config is no object".into())),
        }
    }

    fn of(said: &Map<String, Value>) -> Result<Self> {
        let text = |key: &str| said.get(key).and_then(Value::as_str);
        let refuse = |key: &str| {
            let value = said.get(key).unwrap_or(&Value::Null);
            Err(Error::Config(format!(
                "quantization_config: {key} = {value} is not read"
            )))
        };
        match text("quant_method") {
            Some("fp8" | "fbgemm_fp8") => match text("fmt").unwrap_or("e4m3") {
                "e4m3" => Ok(Self::Fp8 {
                    block: block(Some(said), "weight_block_size")?,
                }),
                _ => refuse("fmt"),
            },
            Some("compressed-tensors") => match text("format") {
                Some("float-quantized") => Ok(Self::Fp8 {
                    block: block(of_groups(said), "block_structure")?,
                }),
                _ => refuse("format"),
            },
            Some("bitsandbytes") => match said.get("load_in_4bit") {
                Some(Value::Bool(true)) => Ok(Self::Table),
                _ => refuse("load_in_4bit"),
            },
            Some("gptq") => Packing::gptq(said).map(Self::Packed),
            Some("awq") => Packing::awq(said).map(Self::Packed),
            Some("mxfp4") => Ok(Self::Mxfp4),
            _ => refuse("quant_method"),
        }
    }
}

/// What compressed-tensors says of the first group's weights; groups of several formats have another one together.
fn of_groups(said: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let mut groups = said.get("config_groups")?.as_object()?.values();
    groups.next()?.get("weights")?.as_object()
}

/// The rows and columns that have one scale together.
fn block(said: Option<&Map<String, Value>>, key: &str) -> Result<Option<[usize; 2]>> {
    let Some(value) = said.and_then(|said| said.get(key)).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let size = |value: &Value| {
        value
            .as_u64()
            .filter(|size| (1..1 << 20).contains(size))
            .map(|size| size as usize)
    };
    let sizes: Option<Vec<usize>> = value.as_array().and_then(|list| list.iter().map(size).collect());
    match sizes.as_deref() {
        Some(&[rows, columns]) => Ok(Some([rows, columns])),
        _ => Err(Error::Config(format!(
            "quantization_config: {key} = {value} is not read"
        ))),
    }
}

/// A source whose matrices are dequantised.
pub struct Dequantised {
    base: Safetensors,
    scheme: Scheme,
}

impl Dequantised {
    pub fn new(base: Safetensors, scheme: Scheme) -> Self {
        Self { base, scheme }
    }

    /// The values of a tensor that is kept quantised; none of one that is kept as it is.
    fn values(&self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let Some((module, last)) = self.parted(name, shape.len()) else {
            return Ok(None);
        };
        let parts = Parts {
            source: &self.base,
            module,
        };
        match self.scheme {
            Scheme::Fp8 { block } => fp8::values(&parts, shape, block),
            Scheme::Table => table::values(&parts, shape),
            Scheme::Packed(packing) => packed::values(&parts, shape, packing),
            Scheme::Mxfp4 => mxfp4::values(&parts, last, shape),
        }
    }

    /// A tensor's module and its last name there, if the scheme is for such tensors.
    fn parted<'n>(&self, name: &'n str, rank: usize) -> Option<(&'n str, &'n str)> {
        let (module, last) = name.rsplit_once('.')?;
        let is_of_scheme = match self.scheme {
            Scheme::Mxfp4 => rank == 3,
            _ => rank == 2 && last == "weight",
        };
        is_of_scheme.then_some((module, last))
    }

    /// The names of what may stand in the files in the place of a tensor, or beside it.
    fn companions(&self, name: &str) -> Vec<String> {
        match (self.scheme, name.strip_suffix(".weight")) {
            (Scheme::Mxfp4, None) => mxfp4::PARTS.iter().map(|part| format!("{name}_{part}")).collect(),
            (Scheme::Mxfp4, Some(_)) | (_, None) => Vec::new(),
            (_, Some(module)) => COMPANIONS.iter().map(|part| format!("{module}.{part}")).collect(),
        }
    }
}

impl Source for Dequantised {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(values) = self.values(name, shape)? else {
            return self.base.tensor(name, shape);
        };
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::tensor(name, format!("holds {} at element {at}", values[at])));
        }
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
        Ok(tensor.to_dtype(self.dtype())?.to_device(self.device())?)
    }

    fn dtype(&self) -> DType {
        self.base.dtype()
    }

    fn device(&self) -> &Device {
        self.base.device()
    }

    fn refuse_unused(&self, asked: &[&str]) -> Result<()> {
        let beside = asked.iter().flat_map(|name| self.companions(name));
        let all: Vec<Cow<str>> = asked
            .iter()
            .map(|name| Cow::from(*name))
            .chain(beside.map(Cow::from))
            .collect();
        self.base
            .refuse_unused(&all.iter().map(AsRef::as_ref).collect::<Vec<_>>())
    }

    fn files(&self) -> Vec<&[u8]> {
        self.base.files()
    }
}

/// The tensors of one module.
struct Parts<'a> {
    source: &'a Safetensors,
    module: &'a str,
}

impl<'a> Parts<'a> {
    fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.module)
    }

    fn find(&self, part: &str) -> Result<Option<Raw<'a>>> {
        self.source.raw(&self.name(part))
    }

    fn get(&self, part: &str) -> Result<Raw<'a>> {
        self.find(part)?.ok_or_else(|| self.refuse(part, "is missing".into()))
    }

    /// A part of this type and shape.
    fn expect(&self, part: &str, dtype: &str, shape: &[usize]) -> Result<&'a [u8]> {
        let raw = self.get(part)?;
        match raw.dtype == dtype && raw.shape == shape {
            true => Ok(raw.bytes),
            false => Err(self.refuse(
                part,
                format!("is {} {:?}, expected {dtype} {shape:?}", raw.dtype, raw.shape),
            )),
        }
    }

    /// The numbers of a part, of any floating type and of this count.
    fn numbers(&self, part: &str, count: usize) -> Result<Vec<f32>> {
        let raw = self.get(part)?;
        let numbers = bits::floats(raw.dtype, raw.bytes)
            .ok_or_else(|| self.refuse(part, format!("has type {}, expected F32, F16 or BF16", raw.dtype)))?;
        match numbers.len() == count {
            true => Ok(numbers),
            false => Err(self.refuse(part, format!("holds {} numbers, expected {count}", numbers.len()))),
        }
    }

    fn refuse(&self, part: &str, cause: String) -> Error {
        Error::tensor(&self.name(part), cause)
    }
}

#[cfg(test)]
mod tests;
