//! LAPACK, and the only file that calls it.
//!
//! Every call runs on the calling thread; parallelism is the caller's, over layers and inside `band`. Symmetric eigenproblems go straight
//! to LAPACK, because ndarray-linalg's `eigh` is `syev`, ten times slower than divide and conquer; SVDs go through ndarray-linalg.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use ndarray_linalg::SVD;
use std::ffi::{c_char, c_int};

#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum LapackError {
    #[error("{routine} failed with info {info}")]
    Failed { routine: &'static str, info: i32 },
    #[error("a matrix of {order} rows is beyond what LAPACK's 32-bit sizes can hold")]
    TooLarge { order: usize },
    #[error("the singular value decomposition failed: {0}")]
    Svd(String),
    #[error("the OpenBLAS loaded is the serial flavour, which threads must not share: install libopenblas0-pthread")]
    SerialFlavour,
}

type Result<T> = std::result::Result<T, LapackError>;

/// Eigenvalues in descending order and unit eigenvectors as rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    pub values: Vec<f64>,
    /// (vectors, order).
    pub vectors: Array2<f64>,
}

/// All eigenvalues and vectors of a full symmetric matrix, by divide and conquer.
pub fn eigen(mut matrix: Array2<f64>) -> Result<Eigen> {
    let order = square(&matrix);
    one_thread()?;
    if order == 0 {
        return Ok(Eigen {
            values: Vec::new(),
            vectors: matrix,
        });
    }
    let n = size(order)?;
    let (job, triangle) = (b'V' as c_char, b'L' as c_char);
    let mut values = vec![0.0; order];
    let mut info = 0;
    let call = |work: &mut [f64], work_size: c_int, iwork: &mut [c_int], iwork_size: c_int| {
        // SAFETY: the matrix is order × order with leading dimension order, `values` has `order` elements, and the workspaces have the
        // stated sizes, or one element each for the query (size −1).
        unsafe {
            lapack_sys::dsyevd_(
                &job,
                &triangle,
                &n,
                matrix.as_mut_ptr(),
                &n,
                values.as_mut_ptr(),
                work.as_mut_ptr(),
                &work_size,
                iwork.as_mut_ptr(),
                &iwork_size,
                &mut info,
            );
        }
        checked(info, "dsyevd")
    };
    with_workspaces(call)?;
    values.reverse();
    // LAPACK leaves vector j in column j of a column-major matrix, which is row j of ours; descending order turns the rows round.
    let vectors = matrix.slice(s![..;-1, ..]).as_standard_layout().into_owned();
    Ok(Eigen { values, vectors })
}

/// The order of a square matrix, which LAPACK can read as it lies.
fn square(matrix: &Array2<f64>) -> usize {
    assert!(
        matrix.is_square() && matrix.is_standard_layout(),
        "a square row-major matrix"
    );
    matrix.nrows()
}

/// What triangularises a panel: H = I − V·T·Vᵀ.
pub struct Reflectors {
    /// Vᵀ: (count, length of a row).
    pub vectors: Array2<f64>,
    /// T: (count, count), upper triangular.
    pub factor: Array2<f64>,
}

/// Triangularises the transpose of a panel of rows: afterwards row i has i + 1 numbers, and what is right of them is rubbish.
pub fn reflectors(mut panel: ArrayViewMut2<'_, f64>) -> Result<Reflectors> {
    let (row_count, len) = panel.dim();
    let stride = panel.stride_of(Axis(0));
    assert!(
        row_count > 0 && len > 0 && panel.stride_of(Axis(1)) == 1 && stride >= len as isize,
        "rows one after another"
    );
    one_thread()?;
    let count = row_count.min(len);
    let (m, n, k, lda) = (size(len)?, size(row_count)?, size(count)?, size(stride as usize)?);
    let mut scales = vec![0.0; count];
    let mut info = 0;
    let mut call = |work: &mut [f64], work_size: c_int| {
        // SAFETY: LAPACK's column is our row, so the panel is `len` × `row_count` with leading dimension `stride`, all of
        // it in the view; `scales` has as many numbers as there are reflectors, and `work` the stated size, or one for the query (size −1).
        unsafe {
            lapack_sys::dgeqrf_(
                &m,
                &n,
                panel.as_mut_ptr(),
                &lda,
                scales.as_mut_ptr(),
                work.as_mut_ptr(),
                &work_size,
                &mut info,
            );
        }
        checked(info, "dgeqrf")
    };
    let mut work = vec![0.0];
    call(&mut work, -1)?;
    let mut work = vec![0.0; (work[0] as usize).max(1)];
    let work_size = size(work.len())?;
    call(&mut work, work_size)?;

    let mut vectors = Array2::<f64>::zeros((count, len));
    for (at, (mut vector, row)) in vectors.rows_mut().into_iter().zip(panel.rows()).enumerate() {
        vector[at] = 1.0;
        vector.slice_mut(s![at + 1..]).assign(&row.slice(s![at + 1..]));
    }
    let mut columns: Array2<f64> = Array2::zeros((count, count));
    let (direction, storage) = (b'F' as c_char, b'C' as c_char);
    // SAFETY: `vectors` is `len` × `count` as LAPACK sees it, without gaps, `scales` has `count` numbers and `columns` count².
    unsafe {
        lapack_sys::dlarft_(
            &direction,
            &storage,
            &m,
            &k,
            vectors.as_ptr(),
            &m,
            scales.as_ptr(),
            columns.as_mut_ptr(),
            &k,
        );
    }
    let factor = columns.t().as_standard_layout().into_owned();
    Ok(Reflectors { vectors, factor })
}

/// Eigenvalues in descending order of a symmetric band: (order, width + 1), row i with its diagonal first.
pub fn eigenvalues_of_band(mut band: Array2<f64>) -> Result<Vec<f64>> {
    let (order, stored) = band.dim();
    assert!(
        stored > 0 && band.is_standard_layout(),
        "a row-major band with its diagonal"
    );
    one_thread()?;
    if order == 0 {
        return Ok(Vec::new());
    }
    let (n, kd, ldab) = (size(order)?, size(stored - 1)?, size(stored)?);
    let (job, triangle) = (b'N' as c_char, b'L' as c_char);
    let mut values = vec![0.0; order];
    let (mut none, one) = (0.0, 1);
    let mut info = 0;
    let call = |work: &mut [f64], work_size: c_int, iwork: &mut [c_int], iwork_size: c_int| {
        // SAFETY: sizes as LAPACK's manual asks: the band (width + 1) × order, `values` order, no vectors; the workspaces have the stated
        // sizes, or one element each for the query (size −1).
        unsafe {
            lapack_sys::dsbevd_2stage_(
                &job,
                &triangle,
                &n,
                &kd,
                band.as_mut_ptr(),
                &ldab,
                values.as_mut_ptr(),
                &mut none,
                &one,
                work.as_mut_ptr(),
                &work_size,
                iwork.as_mut_ptr(),
                &iwork_size,
                &mut info,
            );
        }
        checked(info, "dsbevd_2stage")
    };
    with_workspaces(call)?;
    values.reverse();
    Ok(values)
}

/// The `count` leading eigenvalues and vectors, by relatively robust representations.
pub fn leading(mut matrix: Array2<f64>, count: usize) -> Result<Eigen> {
    let order = square(&matrix);
    assert!(count <= order, "no more vectors than the order");
    one_thread()?;
    if count == 0 {
        return Ok(Eigen {
            values: Vec::new(),
            vectors: Array2::zeros((0, order)),
        });
    }
    let n = size(order)?;
    let (job, range, triangle) = (b'V' as c_char, b'I' as c_char, b'L' as c_char);
    let (first, last) = (size(order - count + 1)?, n);
    let (unused, tolerance) = (0.0, 0.0);
    let mut found = 0;
    let mut values = vec![0.0; order];
    let mut vectors = Array2::<f64>::zeros((count, order));
    let mut support = vec![0; 2 * count];
    let mut info = 0;
    let call = |work: &mut [f64], work_size: c_int, iwork: &mut [c_int], iwork_size: c_int| {
        // SAFETY: sizes as LAPACK's manual asks: the matrix order × order, `values` order, `vectors` count × order, `support`
        // 2 · count; the workspaces have the stated sizes, or one element each for the query (size −1).
        unsafe {
            lapack_sys::dsyevr_(
                &job,
                &range,
                &triangle,
                &n,
                matrix.as_mut_ptr(),
                &n,
                &unused,
                &unused,
                &first,
                &last,
                &tolerance,
                &mut found,
                values.as_mut_ptr(),
                vectors.as_mut_ptr(),
                &n,
                support.as_mut_ptr(),
                work.as_mut_ptr(),
                &work_size,
                iwork.as_mut_ptr(),
                &iwork_size,
                &mut info,
            );
        }
        checked(info, "dsyevr")
    };
    with_workspaces(call)?;
    if size(count)? != found {
        return Err(LapackError::Failed {
            routine: "dsyevr",
            info: found,
        });
    }
    values.truncate(count);
    values.reverse();
    Ok(Eigen {
        values,
        vectors: vectors.slice(s![..;-1, ..]).as_standard_layout().into_owned(),
    })
}

/// Singular values, descending.
pub fn singular_values(matrix: ArrayView2<'_, f64>) -> Result<Vec<f64>> {
    one_thread()?;
    if matrix.is_empty() {
        return Ok(Vec::new());
    }
    let svd = matrix.svd(false, false);
    let (_, values, _) = svd.map_err(|error| LapackError::Svd(error.to_string()))?;
    Ok(values.to_vec())
}

/// Calls once with sizes of −1, to be told the sizes of the workspaces, and then with these.
fn with_workspaces(mut call: impl FnMut(&mut [f64], c_int, &mut [c_int], c_int) -> Result<()>) -> Result<()> {
    let (mut work, mut iwork) = (vec![0.0], vec![0]);
    call(&mut work, -1, &mut iwork, -1)?;
    let mut work = vec![0.0; (work[0] as usize).max(1)];
    let mut iwork = vec![0; iwork[0].max(1) as usize];
    let (work_size, iwork_size) = (size(work.len())?, size(iwork.len())?);
    call(&mut work, work_size, &mut iwork, iwork_size)
}

fn checked(info: c_int, routine: &'static str) -> Result<()> {
    if info == 0 {
        Ok(())
    } else {
        Err(LapackError::Failed { routine, info })
    }
}

fn size(count: usize) -> Result<c_int> {
    c_int::try_from(count).map_err(|_| LapackError::TooLarge { order: count })
}

unsafe extern "C" {
    fn openblas_set_num_threads(count: c_int);
    fn openblas_get_parallel() -> c_int;
}

/// OpenBLAS's bits differ between one and two threads, and its threads fight with ours: it gets one. The serial flavour is refused: it
/// has one buffer for all who call it. A build against it is refused too, but a shared library may be another when the program runs.
/// That OpenBLAS starts no threads while it is loaded, and reads no variable of the machine's, is the program's to see to.
fn one_thread() -> Result<()> {
    static SERIAL: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let serial = *SERIAL.get_or_init(|| {
        // SAFETY: these take an integer by value or nothing, and may be called at any time outside OpenBLAS.
        unsafe {
            openblas_set_num_threads(1);
            openblas_get_parallel() == 0
        }
    });
    if serial {
        Err(LapackError::SerialFlavour)
    } else {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rng::Rng;
    use rayon::prelude::*;

    pub fn symmetric(order: usize, seed: u64) -> Array2<f64> {
        let rng = Rng::new(seed, "lapack test");
        Array2::from_shape_fn((order, order), |(i, j)| rng.normal(i.max(j) as u64, i.min(j) as u64))
    }

    #[test]
    fn vectors_satisfy_the_eigenvalue_equation_and_the_two_routines_agree() {
        let matrix = symmetric(60, 1);
        let whole = eigen(matrix.clone()).unwrap();
        for (value, vector) in whole.values.iter().zip(whole.vectors.rows()) {
            for (product, x) in matrix.dot(&vector).iter().zip(vector) {
                assert!((product - value * x).abs() < 1e-12);
            }
        }
        assert!(whole.values.windows(2).all(|pair| pair[0] >= pair[1]));
        let top = leading(matrix, 5).unwrap();
        assert!(top.values.iter().zip(&whole.values).all(|(a, b)| (a - b).abs() < 1e-12));
        for (a, b) in top.vectors.rows().into_iter().zip(whole.vectors.rows()) {
            assert!((a.dot(&b).abs() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn factorisations_on_many_threads_at_once_give_the_bits_of_one() {
        let order = 150;
        let expected: Vec<Eigen> = (0..8).map(|seed| eigen(symmetric(order, seed)).unwrap()).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build().unwrap();
        pool.install(|| {
            (0..64_usize).into_par_iter().with_max_len(1).for_each(|task| {
                assert_eq!(eigen(symmetric(order, task as u64 % 8)).unwrap(), expected[task % 8]);
            });
        });
    }

    #[test]
    fn singular_values_of_a_known_matrix_are_found() {
        let values = singular_values(ndarray::aview2(&[[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]])).unwrap();
        assert!((values[0] - 4.0).abs() < 1e-14 && (values[1] - 3.0).abs() < 1e-14);
    }
}
