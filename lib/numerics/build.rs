//! Links LAPACK (feature `lapack`): one OpenBLAS, inside the binary where its static archive is installed, shared otherwise.
//!
//! `FLOWLENS_OPENBLAS=static|dynamic` decides; unset means static if possible. A static build runs on machines without any BLAS. Of
//! Debian's flavours only the one with threads is used (told to use one): the serial one shares its work buffers without a lock, and
//! factorisations of several layers at once then differ in their bits from run to run.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=FLOWLENS_OPENBLAS");
    if std::env::var_os("CARGO_FEATURE_LAPACK").is_none() {
        return;
    }
    let wish = std::env::var("FLOWLENS_OPENBLAS").unwrap_or_default();
    let archive = match wish.as_str() {
        "dynamic" => None,
        "" | "static" => find_openblas(),
        other => panic!("FLOWLENS_OPENBLAS is \"{other}\": it takes static or dynamic"),
    };
    match archive {
        Some(directories) => {
            for directory in directories {
                println!("cargo:rustc-link-search=native={}", directory.display());
            }
            // Not bundled into the rlib: the linker takes what it needs from the archive, once.
            println!("cargo:rustc-link-lib=static:-bundle=openblas");
            println!("cargo:rustc-link-lib=static:-bundle=gfortran");
            if find_archive("quadmath").is_some() {
                println!("cargo:rustc-link-lib=static:-bundle=quadmath");
            }
            println!("cargo:rustc-link-lib=dylib=m");
        }
        None if wish == "static" => {
            panic!("no libopenblas.a and libgfortran.a found: install libopenblas-dev and gfortran")
        }
        None => println!("cargo:rustc-link-lib=dylib=openblas"),
    }
}

/// The directories of libopenblas.a and of the Fortran run time it needs; `None` unless both are there.
fn find_openblas() -> Option<Vec<PathBuf>> {
    let multiarch = ask_compiler("-print-multiarch")?;
    let threaded = PathBuf::from(format!("/usr/lib/{multiarch}/openblas-pthread"));
    let openblas = if threaded.join("libopenblas.a").exists() {
        threaded
    } else {
        find_archive("openblas")?
    };
    let mut directories = vec![openblas, find_archive("gfortran")?];
    directories.extend(find_archive("quadmath"));
    directories.dedup();
    Some(directories)
}

fn find_archive(library: &str) -> Option<PathBuf> {
    let file = format!("lib{library}.a");
    let found = ask_compiler(&format!("-print-file-name={file}"))?;
    // A compiler that does not know the file answers with its bare name.
    let path = Path::new(&found);
    if path.is_absolute() && path.exists() {
        path.parent().map(Path::to_path_buf)
    } else {
        None
    }
}

fn ask_compiler(question: &str) -> Option<String> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(compiler).arg(question).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !answer.is_empty()).then_some(answer)
}
