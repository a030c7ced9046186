//! What a family's checkpoints call the decoder's tensors, and which matrices they store as one.

/// The names without `.weight` and `.bias`; those between `blocks` and `norm` stand after a block's number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Names {
    pub embedding: &'static str,
    /// The table of learned positions, in families that have one.
    pub positions: Option<&'static str>,
    pub blocks: &'static str,
    /// The norms that a block has: before attention and the MLP, and after each, before the addition to the residual.
    pub before_attention: Option<&'static str>,
    pub after_attention: Option<&'static str>,
    pub before_mlp: Option<&'static str>,
    pub after_mlp: Option<&'static str>,
    pub qkv: Qkv<&'static str>,
    pub q_norm: &'static str,
    pub k_norm: &'static str,
    pub attn_out: &'static str,
    pub hidden: Hidden<&'static str>,
    pub mlp_out: &'static str,
    /// What stands before `hidden` and `mlp_out` where a block has one MLP.
    pub mlp: &'static str,
    /// In families with sinks: the scores of all heads.
    pub sinks: &'static str,
    /// In families with experts: the matrix that chooses among them.
    pub router: &'static str,
    pub experts: Experts,
    /// What stands before `hidden` and `mlp_out` of an MLP that every row goes through beside its experts.
    pub shared_expert: Option<&'static str>,
    pub norm: &'static str,
    pub head: &'static str,
    /// The blocks' matrices are stored (in, out): `Conv1D` of transformers.
    pub transposed: bool,
}

impl Names {
    /// The whole name of `part` in block `layer`.
    pub fn in_block(&self, layer: usize, part: &str) -> String {
        format!("{}.{layer}.{part}", self.blocks)
    }
}

/// How the matrices of experts are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Experts {
    /// Each by itself, behind this and its expert's number.
    Each(&'static str),
    /// Those of all experts in one tensor (experts, in, out), which has no `.weight` in its name; biases are behind `_bias`.
    Together {
        /// Gates and what they multiply.
        hidden: &'static str,
        /// Each gate stands before what it multiplies; else all gates stand first.
        in_pairs: bool,
        down: &'static str,
    },
}

/// How q, k and v come out of attention's input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Qkv<T> {
    Separate {
        q: T,
        k: T,
        v: T,
    },
    /// One matrix: all of q, then all of k, then all of v.
    Stacked(T),
    /// One matrix: for each key head its queries, then k and v.
    ByGroup(T),
}

/// How the hidden layer comes out of the MLP's input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Hidden<T> {
    Gated {
        gate: T,
        up: T,
    },
    /// One matrix: gate, then up.
    Stacked(T),
    /// No gate.
    Plain(T),
}
