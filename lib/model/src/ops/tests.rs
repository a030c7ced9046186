//! Every operation against the same mathematics of candle-nn, or composed of candle's differentiable operations: values
//! and gradients.

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::ops::{layer_norm_slow, rms_norm_slow};
use candle_nn::rotary_emb::{rope_i_slow, rope_slow};

use super::*;

/// Repeatable numbers around zero.
fn numbers(seed: u64, shape: &[usize]) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 1.5
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn relative_error(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    norm(&(a - b).unwrap()) / norm(b).max(1e-12)
}

/// The own operation and the composed one agree in value and in the gradient of every input.
fn agree(
    inputs: &[Tensor],
    own: impl Fn(&Tape, &[Tensor]) -> Result<Tensor>,
    composed: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let vars: Vec<Tensor> = inputs
        .iter()
        .map(|x| Var::from_tensor(x).unwrap().into_inner())
        .collect();
    let expected = composed(&vars).unwrap();
    let seed = numbers(99, expected.dims());
    let expected_gradients = expected.apply_op1(cpu::Seed(seed.clone())).unwrap().backward().unwrap();

    let tape = Tape::recording(Learning::of(inputs).into());
    let value = own(&tape, inputs).unwrap();
    assert!(
        relative_error(&value, &expected) < 2e-6,
        "value: {}",
        relative_error(&value, &expected)
    );
    let mut gradients = Gradients::default();
    tape.backward(vec![(value, seed)], &mut gradients).unwrap();
    for (index, (input, var)) in inputs.iter().zip(&vars).enumerate() {
        let got = gradients
            .tensor(input)
            .unwrap()
            .expect("every input received a gradient");
        let error = relative_error(&got, expected_gradients.get(var).unwrap());
        assert!(error < 5e-6, "gradient of input {index}: {error}");
    }
}

#[test]
fn linear_agrees_for_many_rows_few_rows_and_a_bias() {
    for rows in [1, 3, 8, 9, 70] {
        let inputs = [numbers(1, &[rows, 37]), numbers(2, &[51, 37]), numbers(3, &[51])];
        agree(
            &inputs,
            |tape, i| linear(tape, &i[0], &i[1], Some(&i[2])),
            |i| i[0].matmul(&i[1].t()?)?.broadcast_add(&i[2]),
        );
        agree(
            &inputs[..2],
            |tape, i| linear(tape, &i[0], &i[1], None),
            |i| i[0].matmul(&i[1].t()?),
        );
    }
}

#[test]
fn a_frozen_weight_gets_no_gradient_and_its_adapter_does() {
    let (x, w) = (numbers(1, &[20, 16]), numbers(2, &[12, 16]));
    let adapter = Adapter {
        down: numbers(3, &[4, 16]),
        up: numbers(4, &[12, 4]),
        scale: 0.5,
    };
    let mut learning = Learning::of([&adapter.down, &adapter.up]);
    learning.adapt(&w, adapter.clone());
    let tape = Tape::recording(learning.into());
    let y = linear(&tape, &x, &w, None).unwrap();
    let merged = (&w + (adapter.up.matmul(&adapter.down).unwrap() * 0.5).unwrap()).unwrap();
    assert!(relative_error(&y, &x.matmul(&merged.t().unwrap()).unwrap()) < 1e-6);
    let mut gradients = Gradients::default();
    let seed = numbers(5, &[20, 12]);
    tape.backward(vec![(y, seed.clone())], &mut gradients).unwrap();
    assert!(gradients.get(&w).is_none() && gradients.get(&x).is_none());
    let up = gradients.tensor(&adapter.up).unwrap().unwrap();
    let low = (x.matmul(&adapter.down.t().unwrap()).unwrap() * 0.5).unwrap();
    assert!(relative_error(&up, &seed.t().unwrap().matmul(&low).unwrap()) < 1e-6);
    assert!(gradients.get(&adapter.down).is_some());
}

#[test]
fn norms_agree_with_and_without_centring_over_rows_and_heads() {
    for shape in [vec![130, 40], vec![7, 3, 8]] {
        let width = *shape.last().unwrap();
        let inputs = [numbers(1, &shape), numbers(2, &[width]), numbers(3, &[width])];
        for offset in [0.0, 1.0] {
            agree(
                &inputs[..2],
                |tape, i| rms_norm(tape, &i[0], Some(&i[1]), 1e-5, offset),
                |i| rms_norm_slow(&i[0], &(&i[1] + offset)?, 1e-5),
            );
        }
        agree(
            &inputs[..1],
            |tape, i| rms_norm(tape, &i[0], None, 1e-5, 0.0),
            |i| rms_norm_slow(&i[0], &Tensor::ones(width, DType::F32, &Device::Cpu)?, 1e-5),
        );
        agree(
            &inputs,
            |tape, i| layer_norm(tape, &i[0], Some(&i[1]), Some(&i[2]), 1e-5),
            |i| layer_norm_slow(&i[0], &i[1], &i[2], 1e-5),
        );
    }
}

#[test]
fn a_residual_around_a_norm_agrees() {
    let inputs = [numbers(1, &[9, 16]), numbers(2, &[16])];
    agree(
        &inputs,
        |tape, i| {
            let x = scale(tape, &i[0], 1.5)?;
            let y = rms_norm(tape, &x, Some(&i[1]), 1e-5, 0.0)?;
            add(tape, &x, &add(tape, &y, &x)?)
        },
        |i| {
            let x = (&i[0] * 1.5)?;
            &x + (rms_norm_slow(&x, &i[1], 1e-5)? + &x)?
        },
    );
}

#[test]
fn rope_agrees_in_both_layouts_and_when_partial() {
    let angles = numbers(7, &[5, 4]);
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    let theirs = |x: &Tensor, pairs| {
        let turned = x.narrow(2, 0, 8)?.transpose(0, 1)?.unsqueeze(0)?.contiguous()?; // (1, heads, rows, 8)
        let turned = match pairs {
            RopePairs::Half => rope_slow(&turned, &cos, &sin)?,
            RopePairs::Interleaved => rope_i_slow(&turned, &cos, &sin)?,
        };
        let rest = x.narrow(2, 8, x.dim(2)? - 8)?;
        Tensor::cat(&[turned.squeeze(0)?.transpose(0, 1)?, rest], 2)
    };
    for pairs in [RopePairs::Half, RopePairs::Interleaved] {
        for head_dim in [8, 12] {
            agree(
                &[numbers(1, &[5, 3, head_dim])],
                |tape, i| rope(tape, &i[0], &cos, &sin, pairs),
                |i| theirs(&i[0], pairs),
            );
        }
    }
}

#[test]
fn activations_agree_alone_and_gated() {
    let inputs = [numbers(1, &[33, 20]), numbers(2, &[33, 20])];
    for (activation, theirs) in [
        (Activation::Silu, candle_nn::Activation::Silu),
        (Activation::Gelu, candle_nn::Activation::Gelu),
        (Activation::GeluTanh, candle_nn::Activation::GeluPytorchTanh),
        (Activation::Relu, candle_nn::Activation::Relu),
    ] {
        agree(
            &inputs[..1],
            |tape, i| activate(tape, &i[0], activation),
            |i| theirs.forward(&i[0]),
        );
        agree(
            &inputs,
            |tape, i| gated(tape, &i[0], &i[1], activation),
            |i| theirs.forward(&i[0])? * &i[1],
        );
    }
}

#[test]
fn attention_agrees_over_ragged_sequences_groups_windows_and_caps() {
    let offsets = [0usize, 1, 70, 75, 215];
    for (heads, kv_heads) in [(4, 4), (4, 2), (6, 1)] {
        for (softcap, window) in [
            (None, None),
            (Some(3.0), None),
            (None, Some(Window::Sliding(9))),
            (Some(2.0), Some(Window::Sliding(66))),
            (None, Some(Window::Chunk(9))),
            (Some(2.0), Some(Window::Chunk(66))),
        ] {
            let how = Attention {
                scale: 0.3,
                softcap,
                window,
                sinks: None,
            };
            let inputs = [
                numbers(1, &[215, heads, 8]),
                numbers(2, &[215, kv_heads, 8]),
                numbers(3, &[215, kv_heads, 8]),
            ];
            agree(
                &inputs,
                |tape, i| attention(tape, &i[0], &i[1], &i[2], &offsets, &how),
                |i| attention::packed_by_candle(i, &offsets, &how),
            );
        }
    }
}

/// A sink as a key of its own, whose value is zero: what a query sees is told by a mask.
#[test]
fn a_sink_is_a_key_without_a_value() {
    let (rows, heads) = (70, 4);
    for window in [None, Some(Window::Sliding(9))] {
        let inputs = [
            numbers(1, &[rows, heads, 8]),
            numbers(2, &[rows, heads, 8]),
            numbers(3, &[rows, heads, 8]),
            numbers(4, &[heads]),
        ];
        let how = |sinks: &Tensor| Attention {
            scale: 0.3,
            softcap: None,
            window,
            sinks: Some(sinks.clone()),
        };
        let length = if window.is_some() { 9 } else { rows };
        let hidden = |row: usize, key: usize| key > row || row - key >= length;
        let mask: Vec<f32> = (0..rows * rows)
            .map(|at| {
                if hidden(at / rows, at % rows) {
                    f32::NEG_INFINITY
                } else {
                    0.0
                }
            })
            .collect();
        let mask = Tensor::from_vec(mask, (1, rows, rows), &Device::Cpu).unwrap();
        let plain = |i: &[Tensor]| {
            let [q, k, v] = [0, 1, 2].map(|at| i[at].transpose(0, 1).unwrap().contiguous().unwrap());
            let scores = (q.matmul(&k.t()?)? * 0.3)?.broadcast_add(&mask)?;
            let sinks = i[3].reshape((heads, 1, 1))?.broadcast_as((heads, rows, 1))?;
            let weights = candle_nn::ops::softmax(&Tensor::cat(&[scores, sinks], 2)?, 2)?;
            weights.narrow(2, 0, rows)?.contiguous()?.matmul(&v)?.transpose(0, 1)
        };
        agree(
            &inputs,
            |tape, i| attention(tape, &i[0], &i[1], &i[2], &[0, rows], &how(&i[3])),
            plain,
        );
        through_candle(|| {
            agree(
                &inputs,
                |tape, i| attention(tape, &i[0], &i[1], &i[2], &[0, rows], &how(&i[3])),
                plain,
            );
        });
        let [q, k, v, sinks] = &inputs;
        let whole = attention(&Tape::off(), q, k, v, &[0, rows], &how(sinks)).unwrap();
        let last = q.narrow(0, rows - 3, 3).unwrap();
        let [keys, values] = [k, v].map(std::slice::from_ref);
        let cached = attention_cached(&last, keys, values, &[0, 3], &how(sinks)).unwrap();
        assert!(relative_error(&cached, &whole.narrow(0, rows - 3, 3).unwrap()) < 1e-6);
        let heads_of_another = how(&numbers(4, &[heads + 1]));
        assert!(attention(&Tape::off(), q, k, v, &[0, rows], &heads_of_another).is_err());
    }
}

#[test]
fn cached_attention_equals_the_last_rows_of_the_whole() {
    let windows = [None, Some(Window::Sliding(30)), Some(Window::Chunk(32))];
    windows.into_iter().for_each(cached_attention_equals);
}

fn cached_attention_equals(window: Option<Window>) {
    let how = Attention {
        scale: 0.4,
        softcap: None,
        window,
        sinks: None,
    };
    let (q, k, v) = (
        numbers(1, &[90, 4, 8]),
        numbers(2, &[90, 2, 8]),
        numbers(3, &[90, 2, 8]),
    );
    let whole = attention(&Tape::off(), &q, &k, &v, &[0, 50, 90], &how).unwrap();
    let last = [q.narrow(0, 47, 3).unwrap(), q.narrow(0, 89, 1).unwrap()];
    let part = |x: &Tensor| vec![x.narrow(0, 0, 50).unwrap(), x.narrow(0, 50, 40).unwrap()];
    let cached = attention_cached(&Tensor::cat(&last, 0).unwrap(), &part(&k), &part(&v), &[0, 3, 4], &how).unwrap();
    let expected = Tensor::cat(&[whole.narrow(0, 47, 3).unwrap(), whole.narrow(0, 89, 1).unwrap()], 0).unwrap();
    assert!(relative_error(&cached, &expected) < 1e-6);
}

#[test]
fn cross_entropy_agrees_with_every_kind_of_head() {
    for through in [false, true] {
        for softcap in [None, Some(4.0)] {
            for scale in [None, Some(0.25)] {
                for biased in [false, true] {
                    let check = || cross_entropy_agrees(softcap, scale, biased);
                    if through { through_candle(check) } else { check() }
                }
            }
        }
    }
}

fn cross_entropy_agrees(softcap: Option<f64>, scale: Option<f64>, biased: bool) {
    let (hidden, weight, bias) = (numbers(1, &[12, 10]), numbers(2, &[40, 10]), numbers(3, &[40]));
    let (rows, token_ids) = ([0u32, 3, 4, 11, 3], [1u32, 39, 0, 7, 8]);
    let logits = |hidden: &Tensor, weight: &Tensor, bias: &Tensor| -> Result<Tensor> {
        let rows = Tensor::new(&rows, &Device::Cpu)?;
        let mut logits = hidden.index_select(&rows, 0)?.matmul(&weight.t()?)?;
        if biased {
            logits = logits.broadcast_add(bias)?;
        }
        logits = (logits * scale.unwrap_or(1.0))?;
        match softcap {
            Some(cap) => (logits / cap)?.tanh()? * cap,
            None => Ok(logits),
        }
    };
    let vars = [&hidden, &weight, &bias].map(|x| Var::from_tensor(x).unwrap().into_inner());
    let ids = Tensor::new(&token_ids, &Device::Cpu).unwrap();
    let expected = candle_nn::loss::cross_entropy(&logits(&vars[0], &vars[1], &vars[2]).unwrap(), &ids).unwrap();
    let expected_gradients = expected.backward().unwrap();

    let tape = Tape::recording(Learning::of([&weight, &bias]).into());
    let mut gradients = Gradients::default();
    let targets = Targets {
        rows: &rows,
        token_ids: &token_ids,
        weight: 1.0 / 5.0,
    };
    let head = Head {
        bias: biased.then_some(&bias),
        scale,
        softcap,
        ..Head::from(&weight)
    };
    let found = cross_entropy(&tape, &hidden, head, targets, Some(&mut gradients)).unwrap();
    let mean = found.row_nats.iter().sum::<f32>() / 5.0;
    assert!((mean - expected.to_scalar::<f32>().unwrap()).abs() < 1e-5);
    let of_hidden = found.hidden_gradient.unwrap();
    assert!(relative_error(&of_hidden, expected_gradients.get(&vars[0]).unwrap()) < 2e-6);
    for (parameter, var) in [(&weight, &vars[1]), (&bias, &vars[2])] {
        let own = gradients.tensor(parameter).unwrap();
        assert_eq!(own.is_some(), biased || parameter.rank() == 2);
        if let Some(own) = own {
            assert!(relative_error(&own, expected_gradients.get(var).unwrap()) < 2e-6);
        }
    }
    let only = cross_entropy(&Tape::off(), &hidden, head, targets, None).unwrap();
    assert!(only.hidden_gradient.is_none() && only.row_nats == found.row_nats);
}

#[test]
fn embedding_narrow_and_reshape_agree() {
    let ids = [4u32, 0, 4, 2];
    agree(
        &[numbers(1, &[6, 8])],
        |tape, i| {
            let x = embedding(tape, &i[0], &ids)?;
            let x = narrow(tape, &reshape(tape, &x, (4, 2, 4))?, 2, 1, 2)?;
            scale(tape, &x, 3.0)
        },
        |i| {
            i[0].index_select(&Tensor::new(&ids, &Device::Cpu)?, 0)?
                .reshape((4, 2, 4))?
                .narrow(2, 1, 2)?
                * 3.0
        },
    );
}

#[test]
fn a_clamped_gate_agrees_within_and_beyond_its_limit() {
    let inputs = [numbers(1, &[33, 20]), numbers(2, &[33, 20])];
    for limit in [0.4, 7.0] {
        agree(
            &inputs,
            |tape, i| clamped_gated(tape, &i[0], &i[1], 1.7, limit),
            |i| {
                let gate = i[0].minimum(f64::from(limit))?;
                let swish = (&gate * candle_nn::ops::sigmoid(&(&gate * 1.7)?)?)?;
                swish * (i[1].clamp(-f64::from(limit), f64::from(limit))? + 1.0)?
            },
        );
    }
}

#[test]
fn one_of_several_weights_agrees() {
    let inputs = [numbers(1, &[9, 16]), numbers(2, &[3, 12, 16]), numbers(3, &[3, 12])];
    let own = |tape: &Tape, i: &[Tensor]| {
        let first = linear_of(tape, &i[0], &i[1], Some(&i[2]), 2)?;
        add(tape, &first, &linear_of(tape, &i[0], &i[1], Some(&i[2]), 0)?)
    };
    let plain = |i: &[Tensor]| {
        let one = |at: usize| i[0].matmul(&i[1].get(at)?.t()?)?.broadcast_add(&i[2].get(at)?);
        one(2)? + one(0)?
    };
    agree(&inputs, own, plain);
    through_candle(|| agree(&inputs, own, plain));
}

#[test]
fn rows_times_their_own_factors_agree() {
    let factors = numbers(5, &[6, 1, 1]);
    agree(
        &[numbers(1, &[6, 2, 8])],
        |tape, i| scale_rows(tape, &i[0], &factors),
        |i| i[0].broadcast_mul(&factors),
    );
}

#[test]
fn a_clamp_agrees() {
    agree(
        &[numbers(1, &[6, 8])],
        |tape, i| clamp(tape, &i[0], 0.7),
        |i| i[0].clamp(-0.7, 0.7),
    );
}

#[test]
fn checkpoints_change_no_bit_of_a_gradient() {
    let (x, w) = (numbers(1, &[20, 16]), numbers(2, &[16, 16]));
    let run = |checkpointing: bool| {
        let tape = Tape::recording(Learning::of([&x, &w]).into()).with_checkpoints(checkpointing);
        let weight = w.clone();
        let y = tape
            .checkpoint(&x, move |tape, x| {
                let y = activate(tape, &linear(tape, x, &weight, None)?, Activation::Silu)?;
                add(tape, x, &linear(tape, &y, &weight, None)?)
            })
            .unwrap();
        let mut gradients = Gradients::default();
        tape.backward(vec![(y, numbers(3, &[20, 16]))], &mut gradients).unwrap();
        [&x, &w].map(|p| {
            gradients
                .tensor(p)
                .unwrap()
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        })
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn an_operation_outside_the_tape_is_refused() {
    let (x, w) = (numbers(1, &[20, 16]), numbers(2, &[16, 16]));
    let tape = Tape::recording(Learning::of([&w]).into());
    let y = linear(&tape, &x, &w, None).unwrap();
    let outside = (y * 2.0).unwrap();
    let mut gradients = Gradients::default();
    let error = tape
        .backward(vec![(outside, numbers(3, &[20, 16]))], &mut gradients)
        .unwrap_err();
    assert!(error.to_string().contains("`linear`"), "{error}");
}

#[test]
fn half_precision_is_widened_inside() {
    let (x, w) = (numbers(1, &[20, 16]), numbers(2, &[16]));
    let exact = rms_norm(&Tape::off(), &x, Some(&w), 1e-5, 0.0).unwrap();
    for dtype in [DType::BF16, DType::F16] {
        let x = x.to_dtype(dtype).unwrap();
        let y = rms_norm(&Tape::off(), &x, Some(&w.to_dtype(dtype).unwrap()), 1e-5, 0.0).unwrap();
        assert_eq!(y.dtype(), dtype);
        assert!(relative_error(&y.to_dtype(DType::F32).unwrap(), &exact) < 1e-2);
    }
}

#[test]
fn the_exponential_is_exact_to_two_units() {
    for step in 0..200_000 {
        let x = -87.0 + step as f32 * (175.0 / 200_000.0);
        let (got, exact) = (f64::from(simd::exp(x)), f64::from(x).exp());
        assert!((got - exact).abs() <= exact * 2.4e-7, "{x}: {got} {exact}");
    }
    assert!(simd::exp(f32::NAN).is_nan() && simd::tanh(f32::NAN).is_nan());
    for step in -2000..2000 {
        let x = step as f32 * 0.005;
        assert!((simd::tanh(x) - x.tanh()).abs() <= 4e-7 * x.abs(), "{x}");
    }
}

#[test]
fn bf16_is_rounded_as_the_half_crate_rounds() {
    let awkward = [
        0x7f80_0000u32,
        0xff80_0000,
        0x7f80_0001,
        0xffff_ffff,
        0x7f7f_ffff,
        0x3f80_8000,
        0x3f81_8000,
        1,
    ];
    let spread = (0..70_000u32).map(|i| i.wrapping_mul(0x9e37_79b9));
    let values: Vec<f32> = awkward.into_iter().chain(spread).map(f32::from_bits).collect();
    let narrow = cpu::tensor(values.clone(), values.len(), DType::BF16).unwrap();
    let bits = |x: &half::bf16| x.to_bits();
    let found = narrow.to_vec1::<half::bf16>().unwrap();
    let expected: Vec<half::bf16> = values.into_iter().map(half::bf16::from_f32).collect();
    assert!(found.iter().map(bits).eq(expected.iter().map(bits)));
    let wide = cpu::wide(&narrow).unwrap().to_vec1::<f32>().unwrap();
    assert!(
        wide.iter()
            .zip(&expected)
            .all(|(wide, x)| wide.to_bits() == x.to_f32().to_bits())
    );
}

#[test]
fn sums_of_bf16_have_the_bits_of_candles() {
    let [a, b] = [1, 2].map(|seed| numbers(seed, &[70, 33]).to_dtype(DType::BF16).unwrap());
    let own = cpu::sum(&a, &b).unwrap();
    let theirs = through_candle(|| cpu::sum(&a, &b)).unwrap();
    let bits = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<half::bf16>().unwrap();
    assert_eq!(bits(&own), bits(&theirs));
    let mut added = a.copy().unwrap();
    cpu::add_in_place(&mut added, &b).unwrap();
    assert_eq!(bits(&added), bits(&theirs));
}
