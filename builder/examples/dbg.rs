use lpbuild::whole::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let o = Backing::open(a[1].as_ref()).unwrap();
    let n = Backing::open(a[2].as_ref()).unwrap();
    let (ow, nw) = (o.whole().unwrap(), n.whole().unwrap());
    let s = scan_pair(&ow, &nw);
    println!(
        "files {} {} spans {} {} pairs {}",
        ow.files.len(),
        nw.files.len(),
        ow.spans.len(),
        nw.spans.len(),
        s.twins.iter().count()
    );
    println!("twins {}", s.twins.files.iter().filter(|f| **f > 0).count());
    for (i, f) in s.twins.files.iter().enumerate().filter(|(_, f)| **f == 0).take(20) {
        println!("no twin {i} {f} {}", ow.files[i]);
    }
    let mut k = 0;
    for i in 0..ow.spans.len() as u32 {
        let id = SpanId(i);
        if s.twins.new_of(id).is_none() {
            k += 1;
            if k < 40 {
                let sp = ow.span(id);
                println!(
                    "unpaired {} file {} {} twin {:?} area {}",
                    ow.name_of(id),
                    sp.file,
                    ow.file_of(id),
                    s.twins.files[sp.file as usize],
                    ow.area_of(id).name
                );
            }
        }
    }
    println!("unpaired {k}");
}
