//! What this processor can do, and what the products make of it, as JSON lines.
//!
//! `rates peaks` runs nothing but multiplications on registers, on one thread and on all: the floor of every table. `rates products
//! PRECISION ROWS K COLUMNS…` multiplies x (ROWS, K) by w (COLUMNS, K) transposed: `f32`, `medium` or `bf16`. Each figure is the best
//! of several short runs by the clock: of several threads the processor time of a short run is not known well.

use std::hint::black_box;
use std::time::{Duration, Instant};

use half::bf16;
use products::{How, MixedProduct, Operand, Precision, family, matrix};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("peaks") => peaks::print(),
        Some("products") => products_of(&words[1..]),
        _ => {
            eprintln!("usage: rates peaks | rates products f32|medium|bf16 ROWS K COLUMNS ...");
            std::process::exit(2);
        }
    }
}

/// The least time that `work` took.
fn best(mut work: impl FnMut()) -> f64 {
    let (begin, mut least) = (Instant::now(), f64::INFINITY);
    while begin.elapsed() < Duration::from_millis(std::env::var("MS").ok().and_then(|x| x.parse().ok()).unwrap_or(1500))
    {
        let start = Instant::now();
        work();
        least = least.min(start.elapsed().as_secs_f64());
    }
    least
}

fn products_of(words: &[String]) {
    let numbers: Vec<usize> = words[1..].iter().map(|word| word.parse().expect("a size")).collect();
    for shape in numbers.chunks(3) {
        let [rows, k, columns] = *shape else {
            panic!("sizes come in threes")
        };
        let (x, w) = (values(rows * k, 1), values(columns * k, 2));
        let how = |precision| How {
            precision,
            ..How::default()
        };
        let (name, seconds) = match words[0].as_str() {
            "bf16" => {
                let (x, w) = (products::narrow(&x), products::narrow(&w));
                (
                    family::<bf16>(Precision::Full),
                    seconds(&x, &w, k, how(Precision::Full)),
                )
            }
            "medium" => (
                family::<f32>(Precision::Medium),
                seconds(&x, &w, k, how(Precision::Medium)),
            ),
            _ => (family::<f32>(Precision::Full), seconds(&x, &w, k, how(Precision::Full))),
        };
        let rate = 2e-9 * (rows * k * columns) as f64 / seconds;
        println!(r#"{{"kernel":"{name}","rows":{rows},"k":{k},"columns":{columns},"gflops":{rate:.1}}}"#);
    }
}

fn seconds<T: Operand>(x: &[T], w: &[T], k: usize, how: How) -> f64 {
    let (x, w) = (matrix(x, x.len() / k, k), matrix(w, w.len() / k, k));
    best(|| drop(black_box(MixedProduct::of(x, w.reversed_axes(), how).to_vec())))
}

fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

#[cfg(target_arch = "x86_64")]
mod peaks {
    use std::arch::asm;

    use super::best;

    const ROUNDS: usize = 200_000;

    /// A loop, and how many operations one round of it is.
    type Peak = (&'static str, bool, fn(), f64);

    pub fn print() {
        let wide = is_x86_feature_detected!("avx512f");
        let pairs = wide && is_x86_feature_detected!("avx512bf16");
        let tiles = super::family::<half::bf16>(super::Precision::Full) == "amx-bf16";
        let narrow = is_x86_feature_detected!("fma");
        let peaks: [Peak; 4] = [
            ("fma, 256 bits", narrow, fma256, 12.0 * 16.0),
            ("fma, 512 bits", wide, fma512, 12.0 * 32.0),
            ("vdpbf16ps", pairs, pairs512, 12.0 * 64.0),
            ("tdpbf16ps", tiles, tdp, 4.0 * 16384.0 / 10.0),
        ];
        let all = rayon::current_num_threads();
        for (name, is_there, work, operations) in peaks.into_iter().filter(|peak| peak.1) {
            debug_assert!(is_there);
            for threads in if all > 1 { vec![1, all] } else { vec![1] } {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .expect("threads");
                let seconds = best(|| drop(pool.broadcast(|_| work())));
                let rate = 1e-9 * operations * (ROUNDS * threads) as f64 / seconds;
                println!(r#"{{"peak":"{name}","threads":{threads},"gflops":{rate:.0}}}"#);
            }
        }
    }

    /// Twelve independent accumulators, as many as hide the latency.
    macro_rules! rounds {
        ($name:ident, $instruction:literal, $register:literal) => {
            fn $name() {
                // SAFETY: the caller found the instruction on this processor; registers alone are changed.
                unsafe {
                    asm!(
                        "2:",
                        concat!($instruction, " ", $register, "0, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "1, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "2, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "3, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "4, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "5, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "6, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "7, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "8, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "9, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "10, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "11, ", $register, "14, ", $register, "15"),
                        "dec {rounds}",
                        "jnz 2b",
                        "vzeroupper",
                        rounds = inout(reg) ROUNDS => _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                        out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                        options(nostack, nomem),
                    );
                }
            }
        };
    }

    rounds!(fma256, "vfmadd231ps", "ymm");
    rounds!(fma512, "vfmadd231ps", "zmm");
    rounds!(pairs512, "vdpbf16ps", "zmm");

    fn tdp() {
        #[repr(C, align(64))]
        struct Configuration([u8; 64]);
        let mut configuration = Configuration([0; 64]);
        configuration.0[0] = 1; // palette
        for tile in 0..8 {
            configuration.0[16 + 2 * tile] = 64; // bytes of a row
            configuration.0[48 + tile] = 16; // rows
        }
        // SAFETY: the caller found the unit permitted; the tiles are configured first and released last.
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tilezero tmm4",
                "tilezero tmm5",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm5",
                "tdpbf16ps tmm1, tmm4, tmm5",
                "tdpbf16ps tmm2, tmm4, tmm5",
                "tdpbf16ps tmm3, tmm4, tmm5",
                "dec {rounds}",
                "jnz 2b",
                "tilerelease",
                configuration = in(reg) &configuration,
                rounds = inout(reg) ROUNDS / 10 => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                options(nostack),
            );
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod peaks {
    pub fn print() {
        eprintln!("peaks are measured on x86-64 alone");
        std::process::exit(4);
    }
}
