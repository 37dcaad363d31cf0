//! Measures packing and unpacking of a directory: `cargo run --release -p slipway-layer --example pack_bench -- DIR`.
//! Without a directory it makes one of 600 MB, half of it random.

use std::{fs, io::Write, path::PathBuf, time::Instant};

use slipway_layer::{Compression, Mode, PackOptions, UnpackOptions, pack, unpack};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scratch = std::env::temp_dir().join(format!("slipway-pack-bench-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let dir = if let Some(dir) = std::env::args_os().nth(1) {
        PathBuf::from(dir)
    } else {
        let dir = scratch.join("tree");
        fs::create_dir(&dir)?;
        for i in 0..6u32 {
            write_file(&dir.join(i.to_string()), i.is_multiple_of(2))?;
        }
        dir
    };
    let layer = scratch.join("layer");
    for compression in [
        Compression::Uncompressed,
        Compression::ZSTD,
        Compression::Gzip(1),
        Compression::GZIP,
    ] {
        let options = PackOptions {
            compression,
            ..PackOptions::default()
        };
        let start = Instant::now();
        let (packed, _) = pack(&dir, fs::File::create(&layer)?, &options)?;
        let packing = start.elapsed();
        let dest = scratch.join("dest");
        fs::create_dir(&dest)?;
        let start = Instant::now();
        unpack(
            fs::File::open(&layer)?,
            &dest,
            &UnpackOptions {
                mode: Mode::Apply,
                ..UnpackOptions::layer()
            },
        )?;
        let unpacking = start.elapsed();
        fs::remove_dir_all(&dest)?;
        println!(
            "{compression:?}: {} MB of tar to {} MB in {packing:.2?}, back in {unpacking:.2?}",
            packed.uncompressed_size / 1_000_000,
            packed.size / 1_000_000
        );
    }
    fs::remove_dir_all(&scratch)?;
    Ok(())
}

/// 100 MB, random or text-like.
fn write_file(path: &std::path::Path, random: bool) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for line in 0..6_250_000u64 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        if random {
            file.write_all(&state.to_le_bytes())?;
            file.write_all(
                &state
                    .rotate_left(29)
                    .wrapping_mul(0x2545_f491_4f6c_dd1d)
                    .to_le_bytes(),
            )?;
        } else {
            writeln!(file, "line {line:07} {}", state >> 62)?;
        }
    }
    file.flush()
}
