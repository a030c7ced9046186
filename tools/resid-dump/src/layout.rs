//! What the container will hold, known before anything runs: its headers, its sizes, and what `--plan` says of them.

use acts::{Header, MomentsKey, Role, TensorSpec, TokenClass};
use model::Site;
use numerics::moments::packed_len;
use process::{Error, Result, ResultExt, Shard};

use crate::plan::{Opened, Plan, acts_dtype};
use crate::report::Shown;

/// The header of the container that this plan gives.
pub fn header(plan: &Plan, opened: &Opened) -> Result<Header> {
    match plan.moments {
        true => moments_header(plan, opened),
        false => rows_header(plan, opened),
    }
}

/// The header without its tensors.
fn bare_header(plan: &Plan, opened: &Opened) -> Result<Header> {
    let shard = (opened.shard != Shard::WHOLE).then_some(acts::Shard {
        index: opened.shard.index,
        count: opened.shard.count,
    });
    let mut header = Header::new("resid-dump", process::VERSION, &process::plan::digest(plan)?, shard);
    header.input_digest = Some(plan.input_digest.clone());
    header.model_digest = Some(plan.model_digest.clone());
    header.tokenizer_digest = Some(plan.tokenizer_digest.clone());
    header.template_digest = plan.template_digest.clone();
    header.compute = Some(acts::Compute {
        dtype: acts_dtype(&plan.compute.dtype),
        device: plan.compute.device.clone(),
        kernel: Some(plan.compute.kernel.clone()),
    });
    header.sample_count = Some(plan.sample_count);
    let config = opened.config();
    let value = serde_json::to_value(plan).map_err(|cause| Error::bug("plan", cause))?;
    header.meta.insert("plan".into(), value);
    header.meta.insert("family".into(), config.family.into());
    header.meta.insert("layer_count".into(), config.layer_count().into());
    Ok(header)
}

/// A header without what names the machine: the form in which the containers of two machines may be compared.
pub fn without_machine(header: &Header) -> Header {
    let mut header = header.clone();
    if let Some(compute) = &mut header.compute {
        compute.device = String::new();
        compute.kernel = None;
    }
    if let Some(plan) = header.meta.get_mut("plan") {
        *plan = process::plan::without_machine(plan.take());
    }
    header
}

/// Activations in the order of the points, then the row tables, then the samples.
fn rows_header(plan: &Plan, opened: &Opened) -> Result<Header> {
    let mut header = bare_header(plan, opened)?;
    let rows = opened.row_count();
    for (at, point) in opened.points.iter().enumerate() {
        let layer = point.layer_index().map(|layer| layer as u32);
        let width = opened.width(at) as u64;
        header.tensors.push(
            TensorSpec::activations(acts_site(point.site), layer, opened.dtype(at), width)
                .codec(opened.codec)
                .rows(rows),
        );
    }
    for name in ["token_id", "sample_index", "position"] {
        header.tensors.push(TensorSpec::row_table(name).rows(rows));
    }
    header.tensors.push(TensorSpec::samples().role(Role::Samples));
    header.fix_blocks().at("plan")?;
    Ok(header)
}

fn moments_header(plan: &Plan, opened: &Opened) -> Result<Header> {
    let mut header = bare_header(plan, opened)?;
    header.groups = opened.groups.clone();
    for key in moments_keys(opened) {
        let group =
            u32::try_from(key.group).map_err(|_| Error::input("--group", format!("{} groups", opened.groups.len())))?;
        let point = opened.points[key.point];
        let of_file = MomentsKey {
            group,
            site: acts_site(point.site),
            layer_index: point.layer_index().map(|layer| layer as u32),
            class: key.class,
        };
        header.tensors.extend(of_file.specs(opened.width(key.point) as u64));
    }
    header.fix_blocks().at("plan")?;
    Ok(header)
}

/// One accumulation: indices into the groups and points, and the class of tokens.
#[derive(Clone, Copy)]
pub struct Key {
    pub group: usize,
    pub point: usize,
    pub class: TokenClass,
}

/// The accumulations of a run, in the order of the container: group, then point, then class.
pub fn moments_keys(opened: &Opened) -> Vec<Key> {
    let mut keys = Vec::new();
    for group in 0..opened.groups.len() {
        for point in 0..opened.points.len() {
            keys.extend(TokenClass::ALL.map(|class| Key { group, point, class }));
        }
    }
    keys
}

/// The size of all moments together.
pub fn moments_bytes(opened: &Opened) -> u64 {
    let one = |width: usize| 8 * (packed_len(width) + 2 * width + 2) as u64;
    let keys = moments_keys(opened);
    keys.into_iter().map(|key| one(opened.width(key.point))).sum()
}

/// What `--plan` prints.
pub fn shown<'p>(plan: &'p Plan, opened: &Opened) -> Result<Shown<'p>> {
    let row_count = opened.row_count();
    let of_point = |point| opened.width(point) * opened.dtype(point).bytes();
    let row_bytes: usize = (0..opened.points.len()).map(of_point).sum();
    Ok(Shown {
        plan,
        plan_digest: process::plan::digest(plan)?,
        shard: format!("{}/{}", opened.shard.index, opened.shard.count),
        shard_sample_count: opened.samples.len(),
        shard_token_count: opened.token_count(),
        row_count,
        raw_bytes: match plan.moments {
            true => moments_bytes(opened),
            // beside each row its token id, sample index and position
            false => row_count * (row_bytes + 12) as u64,
        },
        weight_bytes: opened.checkpoint.weight_bytes(),
        parameter_count: opened.config().parameter_count(),
    })
}

/// The same names in both crates.
fn acts_site(site: Site) -> acts::Site {
    match site {
        Site::Embed => acts::Site::Embed,
        Site::ResidPre => acts::Site::ResidPre,
        Site::ResidMid => acts::Site::ResidMid,
        Site::ResidPost => acts::Site::ResidPost,
        Site::QProj => acts::Site::QProj,
        Site::KProj => acts::Site::KProj,
        Site::Q => acts::Site::Q,
        Site::K => acts::Site::K,
        Site::V => acts::Site::V,
        Site::AttnLogitMax => acts::Site::AttnLogitMax,
        Site::AttnIn => acts::Site::AttnIn,
        Site::AttnProj => acts::Site::AttnProj,
        Site::AttnOut => acts::Site::AttnOut,
        Site::MlpIn => acts::Site::MlpIn,
        Site::MlpProj => acts::Site::MlpProj,
        Site::MlpOut => acts::Site::MlpOut,
        Site::MlpGate => acts::Site::MlpGate,
        Site::MlpAct => acts::Site::MlpAct,
        Site::MlpUp => acts::Site::MlpUp,
        Site::RouterLogits => acts::Site::RouterLogits,
        Site::ExpertChoice => acts::Site::ExpertChoice,
        Site::FinalNorm => acts::Site::FinalNorm,
        Site::Logits => acts::Site::Logits,
    }
}
