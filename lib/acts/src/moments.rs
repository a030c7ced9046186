//! Moments as a payload: statistics of activations that were not kept, five tensors per (group, site, layer, class). Owns their names and
//! shapes, so that the tool that writes them, the merge and the readers agree; the arithmetic is elsewhere.
//!
//! | tensor | dtype, row | rows |
//! | --- | --- | --- |
//! | `moments.<g>.<site>.<l>.<c>.count` | i64 | 1 |
//! | `….mean` | f64 `[d]` | 1 |
//! | `….m2`: Σ(x−mean)(x−mean)ᵀ, upper triangle, row-major | f64 | d(d+1)/2, or 0 where count is 0 |
//! | `….norm_sum`: Σ‖x‖ | f64 | 1 |
//! | `….unit_sum`: Σx/‖x‖ | f64 `[d]` | 1 |
//!
//! `<g>` indexes the header's `groups`; `<l>` is 0 for a site that exists once; `<c>` is `bos` or `rest`. The second moment is one element
//! per row because a triangle of width 4096 is larger than a block.

use crate::{Dtype, Error, File, Header, Result, Role, Site, TensorSpec, Writer};
use std::io::Write;

/// Which tokens were accumulated: the first of each sample, whose activations are massive in many models, or all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenClass {
    Bos,
    Rest,
}

impl TokenClass {
    pub const ALL: [TokenClass; 2] = [TokenClass::Bos, TokenClass::Rest];

    pub fn name(self) -> &'static str {
        match self {
            TokenClass::Bos => "bos",
            TokenClass::Rest => "rest",
        }
    }
}

/// One accumulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MomentsKey {
    /// Index into the header's `groups`.
    pub group: u32,
    pub site: Site,
    pub layer_index: Option<u32>,
    pub class: TokenClass,
}

const PARTS: [&str; 5] = ["count", "mean", "m2", "norm_sum", "unit_sum"];

/// The numbers of one accumulation.
#[derive(Debug, Clone, PartialEq)]
pub struct MomentsParts {
    pub count: i64,
    pub mean: Vec<f64>,
    /// Packed upper triangle; empty where `count` is 0.
    pub m2: Vec<f64>,
    pub norm_sum: f64,
    pub unit_sum: Vec<f64>,
}

impl MomentsKey {
    /// `moments.<g>.<site>.<l>.<c>`, without a part.
    pub fn name(&self) -> String {
        let (group, layer) = (self.group, self.layer_index.unwrap_or(0));
        format!("moments.{group}.{}.{layer}.{}", self.site, self.class.name())
    }

    /// The five tensors, to be listed in a header together and in this order.
    pub fn specs(&self, width: u64) -> [TensorSpec; 5] {
        let name = self.name();
        PARTS.map(|part| {
            let (dtype, shape): (Dtype, &[u64]) = match part {
                "count" => (Dtype::I64, &[]),
                "mean" | "unit_sum" => (Dtype::F64, &[width]),
                _ => (Dtype::F64, &[]),
            };
            TensorSpec {
                role: Role::Moments,
                site: Some(self.site),
                layer_index: self.layer_index,
                ..TensorSpec::new(format!("{name}.{part}"), dtype, shape)
            }
        })
    }

    /// The accumulations that a header lists, in its order, each with the index of its first tensor.
    pub fn all(header: &Header) -> Vec<(MomentsKey, usize)> {
        let counts = header
            .tensors
            .iter()
            .enumerate()
            .filter(|(_, spec)| spec.role == Role::Moments);
        counts
            .filter_map(|(index, spec)| Some((MomentsKey::parse(spec)?, index)))
            .collect()
    }

    /// The key of a `count` tensor.
    fn parse(spec: &TensorSpec) -> Option<MomentsKey> {
        let stem = spec.name.strip_suffix(".count")?;
        let group = stem.strip_prefix("moments.")?.split('.').next()?.parse().ok()?;
        let class = TokenClass::ALL.into_iter().find(|class| stem.ends_with(class.name()))?;
        let key = MomentsKey {
            group,
            site: spec.site?,
            layer_index: spec.layer_index,
            class,
        };
        (key.name() == stem).then_some(key)
    }
}

impl MomentsParts {
    /// Writes the five tensors that begin at `first` (see [`MomentsKey::all`]).
    pub fn push<W: Write>(&self, writer: &mut Writer<W>, first: usize) -> Result<()> {
        let numbers: [&[f64]; 4] = [
            &self.mean,
            &self.m2,
            std::slice::from_ref(&self.norm_sum),
            &self.unit_sum,
        ];
        writer.push_exact(first, &[self.count])?;
        for (tensor, values) in (first.saturating_add(1)..).zip(numbers) {
            writer.push_exact(tensor, values)?;
        }
        Ok(())
    }

    /// Reads the five tensors that begin at `first`; their row counts must be those of one accumulation.
    pub fn read(file: &File, first: usize) -> Result<MomentsParts> {
        let refuse = |cause: &str| {
            let name = file.spec(first).map(|spec| spec.name.clone()).unwrap_or_default();
            Error::Malformed {
                what: format!("moments {name}"),
                at: 0,
                cause: cause.into(),
            }
        };
        let all = |offset: usize| {
            let tensor = first.saturating_add(offset);
            file.to_vec::<f64>(tensor, 0..file.row_count(tensor))
        };
        let count = match file.to_vec::<i64>(first, 0..file.row_count(first))?.as_slice() {
            [count] if *count >= 0 => *count,
            _ => return Err(refuse("count is not one number of 0 or more")),
        };
        let norm_sum = match all(3)?.as_slice() {
            [norm_sum] => *norm_sum,
            _ => return Err(refuse("norm_sum is not one number")),
        };
        let parts = MomentsParts {
            count,
            mean: all(1)?,
            m2: all(2)?,
            norm_sum,
            unit_sum: all(4)?,
        };
        let width = parts.mean.len();
        let triangle = width.checked_mul(width.saturating_add(1)).map(|twice| twice >> 1);
        let expected = if count == 0 { Some(0) } else { triangle };
        if Some(parts.m2.len()) != expected || parts.unit_sum.len() != width {
            return Err(refuse("mean, m2 and unit_sum are not of one width"));
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OpenOptions;

    #[test]
    fn moments_survive_a_container() {
        let keys = [
            MomentsKey {
                group: 0,
                site: Site::ResidPost,
                layer_index: Some(3),
                class: TokenClass::Rest,
            },
            MomentsKey {
                group: 12,
                site: Site::Embed,
                layer_index: None,
                class: TokenClass::Bos,
            },
        ];
        let parts = [
            MomentsParts {
                count: 7,
                mean: vec![1.0, 2.0],
                m2: vec![3.0, 4.0, 5.0],
                norm_sum: 6.0,
                unit_sum: vec![0.5, 0.25],
            },
            MomentsParts {
                count: 0,
                mean: vec![0.0; 2],
                m2: vec![],
                norm_sum: 0.0,
                unit_sum: vec![0.0; 2],
            },
        ];
        let mut header = Header::new("test", "0", "plan", None);
        header.tensors = keys.iter().flat_map(|key| key.specs(2)).collect();
        header.fix_blocks().unwrap();
        let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
        for ((_, first), parts) in MomentsKey::all(writer.header()).into_iter().zip(&parts) {
            parts.push(&mut writer, first).unwrap();
        }
        let (bytes, _) = writer.finish().unwrap();
        let file = File::from_bytes(bytes, OpenOptions::default()).unwrap();
        let found = MomentsKey::all(file.header());
        assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
        for ((_, first), parts) in found.iter().zip(&parts) {
            assert_eq!(&MomentsParts::read(&file, *first).unwrap(), parts);
        }
        assert!(file.tensor("moments.12.embed.0.bos.m2").is_ok());
    }
}
