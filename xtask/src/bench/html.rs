//! The bench as one self-contained page: bars against the peers, and how the samples of each row are spread.

use super::bars;
use super::peers::Measured;
use super::rows::{Findings, Row};
use anyhow::{Context, anyhow};
use plotters::prelude::*;
use std::fmt::Write;
use std::path::Path;

const WIDTH: u32 = 1100;
/// Height of a row's group of bars.
const GROUP: u32 = 44;
const MARGIN: u32 = 70;
const HISTOGRAM: (u32, u32) = (340, 150);
const OURS: RGBColor = RGBColor(0, 110, 180);
const XEN: RGBColor = RGBColor(230, 150, 40);
const KVM: RGBColor = RGBColor(170, 70, 130);
const BAR: RGBColor = RGBColor(90, 90, 90);

/// Writes the page.
pub(crate) fn write(path: &Path, findings: &Findings, peers: &[Measured]) -> anyhow::Result<()> {
    let mut histograms = String::new();
    for row in findings.rows.iter().filter(|row| !row.histogram.is_empty()) {
        histograms += &histogram(row)?;
    }
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Bullpen: the bench</title>\
         <style>body{{font:15px sans-serif;margin:2em;max-width:1150px}}pre{{overflow-x:auto}}svg{{margin:4px}}</style></head><body>\
         <h1>What a trap and a resume cost</h1><p>Instructions, counted by QEMU; shorter is better, the scale is logarithmic.</p>\
         {}<h2>Every sample</h2>{histograms}<h2>Numbers</h2><pre>{}</pre><pre>{}</pre></body></html>\n",
        picture(findings, peers)?,
        escaped(&findings.table()),
        escaped(&super::peers::table(findings, peers)),
    );
    std::fs::write(path, page).with_context(|| path.display().to_string())
}

/// Draws the rows that have a bar: Bullpen, the bar, and the best Xen and KVM, measured here or else as published in `bars`.
pub(crate) fn picture(findings: &Findings, peers: &[Measured]) -> anyhow::Result<String> {
    let rows: Vec<(&Row, &bars::Bar)> = findings
        .rows
        .iter()
        .filter_map(|row| Some((row, bars::of(&row.name)?)))
        .filter(|(_, bar)| bar.bar.is_some_and(|bar| bar < 2000) && bar.xen.or(bar.kvm).is_some())
        .collect();
    let peer = |name: &str, row: &str| {
        let found = peers.iter().find(|peer| peer.name() == name)?;
        found.row(row).map(|row| row.median)
    };
    let height = MARGIN + GROUP * u32::try_from(rows.len())?;
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        let font = ("sans-serif", 13).into_font();
        let legend = [
            ("Bullpen", OURS),
            ("our bar", BAR),
            ("Xen", XEN),
            ("KVM", KVM),
        ];
        for (at, (name, colour)) in (0..).zip(legend) {
            let x = 330 + at * 120;
            root.draw(&Rectangle::new([(x, 12), (x + 14, 26)], colour.filled()))
                .map_err(drawing)?;
            root.draw(&Text::new(name, (x + 20, 13), font.clone()))
                .map_err(drawing)?;
        }
        let scale = "instructions, logarithmic scale: shorter is better";
        root.draw(&Text::new(scale, (810, 13), font.clone()))
            .map_err(drawing)?;
        for (at, (row, bar)) in (0..).zip(&rows) {
            let top = 44 + at * i32::try_from(GROUP)?;
            root.draw(&Text::new(bar.what, (8, top + 12), font.clone()))
                .map_err(drawing)?;
            let values = [
                (Some(row.median), OURS),
                (bar.bar, BAR),
                (peer("xen", &row.name).or(bar.xen), XEN),
                (peer("kvm", &row.name).or(bar.kvm), KVM),
            ];
            for (line, (value, colour)) in (0..).zip(values) {
                let Some(value) = value else { continue };
                let y = top + line * 9;
                let end = 330 + length(value);
                root.draw(&Rectangle::new([(330, y), (end, y + 8)], colour.filled()))
                    .map_err(drawing)?;
                let small = ("sans-serif", 10).into_font();
                root.draw(&Text::new(value.to_string(), (end + 4, y - 1), small))
                    .map_err(drawing)?;
            }
        }
        root.present().map_err(drawing)?;
    }
    Ok(text)
}

/// The length of a bar: 140 pixels for each power of ten.
fn length(value: u64) -> i32 {
    ((value.max(1) as f64).log10() * 140.0) as i32
}

fn histogram(row: &Row) -> anyhow::Result<String> {
    let most = row.histogram.iter().map(|&(_, count)| count).max();
    let most = most.unwrap_or(1);
    let (low, high) = (row.min.saturating_sub(10), row.max + 10);
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, HISTOGRAM).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(&row.name, ("sans-serif", 13))
            .margin(8)
            .x_label_area_size(22)
            .y_label_area_size(40)
            .build_cartesian_2d(low..high, 0..most + 1)
            .map_err(drawing)?;
        chart
            .configure_mesh()
            .x_labels(4)
            .y_labels(3)
            .disable_x_mesh()
            .draw()
            .map_err(drawing)?;
        let half = (high - low).div_ceil(120);
        let bars = row.histogram.iter().map(|&(value, count)| {
            let left = value.saturating_sub(half);
            Rectangle::new([(left, 0), (value + half, count)], OURS.filled())
        });
        chart.draw_series(bars).map_err(drawing)?;
        root.present().map_err(drawing)?;
    }
    Ok(text)
}

fn drawing<E: std::fmt::Display>(error: E) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        // Writing to a string cannot fail.
        let _ = match c {
            '<' => safe.write_str("&lt;"),
            '&' => safe.write_str("&amp;"),
            _ => safe.write_char(c),
        };
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_holds_every_row() {
        let mut row = Row::single("sgi-self", 174);
        row.histogram = vec![(170, 3), (174, 9)];
        let findings = Findings {
            rows: vec![row],
            ..Findings::default()
        };
        let path = std::env::temp_dir().join(format!("bullpen-{}.html", std::process::id()));
        write(&path, &findings, &[]).unwrap();
        let page = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("SGI to self") && page.contains("1029") || page.contains("960"));
        assert!(!page.contains("src=") && !page.contains("<script"));
    }
}
