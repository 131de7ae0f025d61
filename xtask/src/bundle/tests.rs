//! Bundles, packed and opened again.

use std::io::Write;

use super::*;
use crate::manifest_toml::Bytes;

/// A folder that is there for one test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("bullpen-bundle-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, content).expect("a file");
        PathBuf::from(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// An arm64 Image of 8 KiB.
fn image() -> Vec<u8> {
    let mut file: Vec<u8> = (0..8192_u32).map(|index| (index % 251) as u8).collect();
    file[..64].fill(0);
    file[16..24].copy_from_slice(&0x10000_u64.to_le_bytes());
    file[0x38..0x3c].copy_from_slice(b"ARM\x64");
    file
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("gzip");
    encoder.finish().expect("gzip")
}

fn zstd(content: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
}

/// An EFI zboot kernel with this payload.
fn zboot(method: &str, payload: &[u8]) -> Vec<u8> {
    const START: usize = 0x200;
    let mut file = vec![0; START];
    file[..8].copy_from_slice(b"MZ\0\0zimg");
    file[8..12].copy_from_slice(&(START as u32).to_le_bytes());
    file[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file[24..24 + method.len()].copy_from_slice(method.as_bytes());
    file.extend_from_slice(payload);
    file
}

fn give(vm: &mut VmToml, key: &'static str, value: Value) {
    *vm = vm.clone().with(key, value);
}

fn one_vm(kernel: &Path) -> ManifestToml {
    ManifestToml {
        vms: vec![VmToml::new("linux", kernel, Bytes(64 << 20))],
        ..ManifestToml::default()
    }
}

#[test]
fn kernels_are_unpacked_whatever_they_are_packed_with() {
    let folder = Folder::new("unpack");
    let forms = [
        ("plain", image()),
        ("gzip", gzip(&image())),
        ("zstd", zstd(&image())),
        ("zboot-gzip", zboot("gzip", &gzip(&image()))),
        ("zboot-zstd", zboot("zstd", &zstd(&image()))),
    ];
    for (name, file) in forms {
        let path = folder.write(name, &file);
        let bundle = pack_bytes(&one_vm(&path), &folder.0).expect(name);
        let bundle = config::Bundle::open(&bundle).expect(name);
        assert_eq!(
            bundle.archive.file(name),
            Some(image().as_slice()),
            "{name}"
        );
    }
}

/// Half of an Image, and the rest.
fn halves() -> (Vec<u8>, Vec<u8>) {
    let image = image();
    let (first, second) = image.split_at(3000);
    (first.to_vec(), second.to_vec())
}

/// A zstd frame that unpackers skip, as pzstd writes before each of its own.
const SKIPPED: &[u8] = b"\x50\x2a\x4d\x18\x04\0\0\0\x10\0\0\0";

#[test]
fn kernels_packed_in_parts_are_unpacked_whole() {
    let folder = Folder::new("parts");
    let (first, second) = halves();
    let gzips = [gzip(&first), gzip(&second)].concat();
    let zstds = [zstd(&first), zstd(&second)].concat();
    let skipping = [SKIPPED, &zstd(&first), SKIPPED, &zstd(&second)].concat();
    let tree = b"\xd0\x0d\xfe\xed and more".as_slice();
    let size = (image().len() as u32).to_le_bytes();
    let forms = [
        ("gzip", gzips.clone()),
        ("zstd", zstds.clone()),
        ("skipped", skipping),
        ("gzip-dtb", [&gzips, tree].concat()),
        ("zstd-dtb", [&zstds, tree].concat()),
        ("padded", [&gzips, [0; 512].as_slice()].concat()),
        ("padded-dtb", [&gzips, [0; 5].as_slice(), tree].concat()),
        (
            "sized",
            zboot("zstd22", &[&zstds, size.as_slice()].concat()),
        ),
        ("zboot-gzip", zboot("gzip", &gzips)),
    ];
    for (name, file) in forms {
        let path = folder.write(name, &file);
        let bundle = pack_bytes(&one_vm(&path), &folder.0).expect(name);
        let bundle = config::Bundle::open(&bundle).expect(name);
        assert!(
            bundle.archive.file(name) == Some(image().as_slice()),
            "{name}"
        );
    }
}

#[test]
fn what_follows_a_packed_kernel_and_is_no_part_of_it_is_refused() {
    let folder = Folder::new("rest");
    let (gzip, zstd) = (gzip(&image()), zstd(&image()));
    let cases = [
        (
            [&gzip, b"more".as_slice()].concat(),
            "4 bytes after the packed kernel",
        ),
        (
            [&zstd, b"more!".as_slice()].concat(),
            "5 bytes after the packed kernel",
        ),
        ([&gzip, &gzip[..30]].concat(), "gzip data is damaged"),
        ([&zstd, &zstd[..30]].concat(), "zstd data is damaged"),
        ([&zstd, &SKIPPED[..10]].concat(), "zstd data is damaged"),
    ];
    for (file, expected) in cases {
        let path = folder.write("kernel", &file);
        let packed = pack_bytes(&one_vm(&path), &folder.0).map(|bundle| bundle.len());
        let error = packed.expect_err(expected);
        let error = format!("{error:#}");
        assert!(
            error.contains(expected),
            "{error}\nshould contain {expected}"
        );
    }
}

#[test]
fn images_start_on_pages_and_are_packed_once() {
    let folder = Folder::new("pages");
    let kernel = folder.write("Image", &image());
    let (one, two) = (
        folder.write("a/initrd", b"one"),
        folder.write("b/initrd", b"two"),
    );
    let mut manifest = one_vm(&kernel);
    for (name, initrd) in [("b", one), ("c", two)] {
        let vm = VmToml::new(name, &kernel, Bytes(64 << 20));
        manifest.vms.push(vm.with("initrd", Value::File(initrd)));
    }
    let bytes = pack_bytes(&manifest, &folder.0).expect("a bundle");
    let bundle = config::Bundle::open(&bytes).expect("a bundle");
    assert!(bundle.archive.file("manifest.dtb").is_some());
    for name in ["Image", "initrd", "initrd.2"] {
        let contents = bundle.archive.file(name).expect(name);
        let start = contents.as_ptr().addr() - bytes.as_ptr().addr();
        assert_eq!(start % 4096, 0, "{name} starts at {start}");
    }
    let initrds: Vec<Option<&[u8]>> = bundle
        .manifest
        .vms
        .iter()
        .map(|vm| {
            vm.as_ref()
                .ok()
                .and_then(|vm| bundle.archive.file(vm.initrd.as_deref()?))
        })
        .collect();
    assert_eq!(
        initrds,
        [None, Some(b"one".as_slice()), Some(b"two".as_slice())]
    );
}

#[test]
fn every_key_arrives() {
    let folder = Folder::new("keys");
    let kernel = folder.write("Image", &image());
    folder.write("initrd", b"initrd");
    folder.write("disk.img", b"content");
    let text = format!(
        "[hypervisor]\nscrub = \"boot\"\nlog = \"debug\"\nautostart = false\n\
         [[vm]]\nname = \"linux\"\nkernel = \"{}\"\ninitrd = \"initrd\"\ncommand-line = \"quiet\"\nmemory = \"256M\"\n\
         memory-base = 0x80000000\nboot-vcpus = 2\nmax-vcpus = 8\ncpus = [1, 3]\nfirmware = \"fdt\"\nautostart = false\n\
         on-reset = \"boot-set\"\nspis = 96\nreserve-idle = \"psci-off\"\n\
         uuid = \"00112233-4455-6677-8899-aabbccddeeff\"\ntopology = [2, 1, 2, 2]\nmax-memory = \"256M\"\nmemory-block = \"512M\"\n\
         rng = true\ncpu-weight = 700\nnetworks = [\"lan\", \"dmz\"]\n\
         [vm.entitlement]\nvcpus = {{ min = 2, max = 6 }}\ncpu-cap = {{ min = 250, max = \"1500m\" }}\n\
         [[vm.net]]\nnetwork = \"lan\"\nmac = \"02:00:00:00:00:0A\"\nmtu = 9000\nrate = \"10M\"\nallow-spoof = true\n\
         [[vm.disk]]\nname = \"root\"\nimage = \"disk.img\"\nreadonly = false\ncow-quota = \"1M\"\n\
         [[vm.disk]]\nname = \"data\"\nimage = \"initrd\"\n",
        kernel.display()
    );
    let manifest = ManifestToml::parse(&text, Path::new("m.toml")).expect("a manifest");
    let bytes = pack_bytes(&manifest, &folder.0).expect("a bundle");
    let bundle = config::Bundle::open(&bytes).expect("a bundle");
    let options = bundle.manifest.options;
    assert_eq!(
        (options.scrub, options.log.as_str(), options.autostart),
        (config::Scrub::Boot, "DEBUG", false)
    );
    let vm = bundle.manifest.vms[0].as_ref().expect("a VM");
    assert_eq!(
        (
            vm.kernel.as_str(),
            vm.initrd.as_deref(),
            vm.command_line.as_str()
        ),
        ("Image", Some("initrd"), "quiet")
    );
    assert_eq!(
        (vm.memory_bytes, vm.memory_base.get()),
        (256 << 20, 0x8000_0000)
    );
    assert_eq!(
        (vm.boot_vcpus, vm.max_vcpus, vm.spis, vm.autostart),
        (2, 8, 96, false)
    );
    assert_eq!(
        format!("{:?}", vm.placement),
        "Pinned([PcpuId(1), PcpuId(3)])"
    );
    assert_eq!(
        format!("{:?} {:?} {:?}", vm.firmware, vm.on_reset, vm.reserve_idle),
        "Fdt BootSet PsciOff"
    );
    let entitled = [vm.entitlement.vcpus, vm.entitlement.cpu_cap];
    let entitled = entitled.map(|bounds| bounds.expect("it has bounds").to_string());
    assert_eq!(entitled, ["2 to 6 vCPUs", "250 to 1500 millicores"]);
    assert_eq!((vm.cpu_cap, vm.cpu_weight), (Some(1500), 700));
    let topology = vm.topology.expect("it is told");
    assert_eq!(
        (vm.uuid.to_string().as_str(), topology.packages),
        ("00112233-4455-6677-8899-aabbccddeeff", 2)
    );
    assert_eq!((topology.cores, topology.threads), (2, 2));
    let nets: Vec<_> = vm
        .nets
        .iter()
        .map(|net| (net.name.as_str(), net.network.as_str()))
        .collect();
    assert!(vm.rng);
    assert_eq!(nets, [("net0", "lan"), ("net1", "dmz"), ("net2", "lan")]);
    let net = &vm.nets[2];
    assert_eq!(
        (net.mac, net.mtu, net.rate),
        ([2, 0, 0, 0, 0, 10], 9000, 10 << 20)
    );
    assert!(net.may_spoof && !vm.nets[0].may_spoof && vm.nets[0].mtu == 1500);
    let [root, data] = &vm.disks[..] else {
        panic!("{:?}", vm.disks)
    };
    assert_eq!((root.name.as_str(), root.cow_quota), ("root", 1 << 20));
    assert_eq!((data.name.as_str(), data.cow_quota), ("data", 0));
    assert_eq!(
        bundle.archive.file(&root.image),
        Some(b"content".as_slice())
    );
    assert_eq!(data.image, "initrd", "a file is packed once");
}

#[test]
fn what_is_wrong_with_a_device_is_said_with_its_table() {
    let folder = Folder::new("device-errors");
    let kernel = folder.write("Image", &image());
    folder.write("disk.img", b"content");
    let vm = format!(
        "[[vm]]\nname = \"a\"\nmemory = \"64M\"\nkernel = \"{}\"\n[[vm.disk]]\nname = \"root\"\n",
        kernel.display()
    );
    for (rest, expected) in [
        (
            "image = \"gone\"\n",
            "[[vm]] \"a\" [[vm.disk]] \"root\": image",
        ),
        (
            "image = \"disk.img\"\ncow-quota = 5000\n",
            "[[vm]] \"a\" [[vm.disk]] \"root\": cow-quota = 5000: is not a multiple of \"4K\": write \"8K\"",
        ),
        (
            "image = \"disk.img\"\nreadonly = false\n",
            "[[vm]] \"a\" [[vm.disk]] \"root\": cow-quota is missing",
        ),
        (
            "image = \"disk.img\"\n[[vm.net]]\nnetwork = \"lan\"\nmac = \"01:00:00:00:00:00\"\n",
            "[[vm]] \"a\" [[vm.net]] \"net0\": mac = \"01:00:00:00:00:00\": is not the MAC address of a station",
        ),
        (
            "image = \"disk.img\"\n[[vm.disk]]\nname = \"Root\"\nimage = \"disk.img\"\n",
            "[[vm.disk]] \"Root\": name is not a name",
        ),
    ] {
        let text = format!("{vm}{rest}");
        let manifest = ManifestToml::parse(&text, Path::new("m.toml")).expect("a manifest");
        let error = pack_bytes(&manifest, &folder.0).expect_err(expected);
        let said = format!("{error:#}");
        assert!(said.contains(expected), "{said}\nshould contain {expected}");
    }
}

#[test]
fn what_is_wrong_is_said_with_table_key_and_value() {
    let folder = Folder::new("errors");
    let kernel = folder.write("Image", &image());
    let damaged = folder.write("damaged.gz", &gzip(&image())[..100]);
    let xz = folder.write("x.xz", b"\xfd7zXZ\0......");
    let lzma = folder.write("z", &zboot("lzma", b"...."));
    let empty = folder.write("empty", b"");
    type Change<'a> = &'a dyn Fn(&mut ManifestToml);
    let cases: &[(Change<'_>, &[&str])] = &[
        (
            &|m| give(&mut m.vms[0], "kernel", Value::File("absent".into())),
            &["[[vm]] \"linux\": kernel", "absent"],
        ),
        (
            &|m| give(&mut m.vms[0], "initrd", Value::File("gone".into())),
            &["[[vm]] \"linux\": initrd", "gone"],
        ),
        (
            &|m| give(&mut m.vms[0], "kernel", Value::File(damaged.clone())),
            &["kernel", "damaged.gz", "gzip data is damaged"],
        ),
        (
            &|m| give(&mut m.vms[0], "kernel", Value::File(xz.clone())),
            &["[[vm]] \"linux\": kernel \"x.xz\" is an xz file"],
        ),
        (
            &|m| give(&mut m.vms[0], "kernel", Value::File(lzma.clone())),
            &["packed with \"lzma\""],
        ),
        (
            &|m| give(&mut m.vms[0], "kernel", Value::File(empty.clone())),
            &["kernel", "empty is empty"],
        ),
        (
            &|m| m.vms[0].name = "Linux".into(),
            &["[[vm]] \"Linux\": name is not a name"],
        ),
        (
            &|m| m.vms.push(m.vms[0].clone()),
            &["[[vm]] \"linux\": name is there twice"],
        ),
        (
            &|m| give(&mut m.vms[0], "memory", Value::Wide(3 << 20)),
            &[
                "[[vm]] \"linux\": memory = 3145728: is not between \"4M\" and \"255G\"; that is 3145728 bytes",
            ],
        ),
        (
            &|m| give(&mut m.vms[0], "memory", Value::Wide(9_000_001)),
            &["memory = 9000001: is not a multiple of \"2M\": write \"10M\""],
        ),
        (
            &|m| {
                give(&mut m.vms[0], "cpus", Value::List(vec![1]));
                give(&mut m.vms[0], "max-vcpus", Value::Count(512));
                m.vms.push(m.vms[0].clone());
                m.vms[1].name = "second".into();
            },
            &["[[vm]] \"second\": cpus = 1: is full: 512 vCPUs fit on a CPU"],
        ),
        (
            &|m| give(&mut m.vms[0], "memory", Value::Wide(512)),
            &["memory = 512: ", "that is 512 bytes: write \"512M\""],
        ),
        (
            &|m| give(&mut m.vms[0], "memory-base", Value::Wide(0x4000_1000)),
            &["memory-base = 0x40001000: is not a multiple of 0x200000: write 0x40200000"],
        ),
        (
            &|m| give(&mut m.vms[0], "memory-base", Value::Wide(0)),
            &["memory-base = 0x0: is not between 0x40000000 and 0x3fffc00000"],
        ),
        (
            &|m| give(&mut m.vms[0], "entitlement.vcpus", Value::List(vec![1, 2])),
            &["entitlement.vcpus = { min = 1, max = 2 }: is not between 1 and 1"],
        ),
        (
            &|m| {
                let bounds = Value::List(vec![100, 200]);
                give(&mut m.vms[0], "entitlement.cpu-cap", bounds);
                give(&mut m.vms[0], "cpu-cap", Value::Count(500));
            },
            &["cpu-cap = 500: is not within the VM's entitlement, 100 to 200 millicores"],
        ),
        (
            &|m| give(&mut m.vms[0], "cpus", Value::List(vec![0, 1, 0])),
            &["cpus = [0, 1, 0]: is there twice"],
        ),
        (
            &|m| {
                give(
                    &mut m.vms[0],
                    "command-line",
                    Value::Text("console=ttyAMA0\nquiet".into()),
                )
            },
            &["command-line = \"console=ttyAMA0\\nquiet\": character 16 is not printable ASCII"],
        ),
        (
            &|m| {
                let vm = m.vms[0].clone();
                let numbered = |number| VmToml {
                    name: format!("v{number}"),
                    ..vm.clone()
                };
                m.vms = (0..65).map(numbered).collect();
            },
            &["[[vm]] \"v64\": more than 64 VMs"],
        ),
        (
            &|m| give(&mut m.vms[0], "max-vcpus", Value::Count(513)),
            &["[[vm]] \"linux\": max-vcpus = 513: is not between 1 and 512"],
        ),
        (
            &|m| give(&mut m.vms[0], "firmware", Value::Text("bios".into())),
            &["firmware = \"bios\": is not one of acpi, fdt"],
        ),
        (
            &|m| give(&mut m.vms[0], "cpus", Value::List(vec![])),
            &["cpus = []: names no CPU: write a list such as [0, 1, 2, 3]"],
        ),
        (
            &|m| give(&mut m.vms[0], "command-line", Value::Text("a\0b".into())),
            &["command-line"],
        ),
        (
            &|m| {
                _ = m
                    .hypervisor
                    .values
                    .insert("log", Value::Text("loud".into()))
            },
            &["[hypervisor]: log = \"loud\": is not one of off"],
        ),
    ];
    for (change, expected) in cases {
        let mut manifest = one_vm(&kernel);
        change(&mut manifest);
        let error = format!(
            "{:#}",
            pack_bytes(&manifest, &folder.0).expect_err(expected[0])
        );
        assert!(
            expected.iter().all(|part| error.contains(part)),
            "{error}\nshould contain {expected:?}"
        );
    }
}

#[test]
fn the_documented_example_can_be_packed() {
    let folder = Folder::new("example");
    folder.write("images/Image", &image());
    folder.write("images/initramfs.cpio", b"070701");
    let text = include_str!("../../../docs/examples/two-linux.toml");
    let manifest = ManifestToml::parse(text, Path::new("two-linux.toml")).expect("an example");
    let bytes = pack_bytes(&manifest, &folder.0).expect("an example");
    let bundle = config::Bundle::open(&bytes).expect("an example");
    let vms: Vec<_> = bundle
        .manifest
        .vms
        .iter()
        .flatten()
        .map(|vm| (vm.name.to_string(), vm.firmware))
        .collect();
    assert_eq!(
        vms,
        [
            ("web".to_string(), control_plane::firmware::Firmware::Acpi),
            ("batch".to_string(), control_plane::firmware::Firmware::Fdt)
        ]
    );
}

#[test]
fn the_examples_with_devices_can_be_packed() {
    let folder = Folder::new("example-devices");
    folder.write("images/Image", &image());
    for name in ["initramfs.cpio", "root.ext4", "data.squashfs"] {
        folder.write(&format!("images/{name}"), b"070701");
    }
    let pack = |text: &str| {
        let manifest = ManifestToml::parse(text, Path::new("example.toml")).expect("an example");
        pack_bytes(&manifest, &folder.0).expect("an example")
    };
    let bytes = pack(include_str!("../../../docs/examples/disk.toml"));
    let bundle = config::Bundle::open(&bytes).expect("an example");
    let vm = bundle.manifest.vms[0].as_ref().expect("a VM");
    let quotas: Vec<u64> = vm.disks.iter().map(|disk| disk.cow_quota).collect();
    assert_eq!(quotas, [256 << 20, 0]);
    let bytes = pack(include_str!("../../../docs/examples/two-linux-net.toml"));
    let bundle = config::Bundle::open(&bytes).expect("an example");
    let networks = bundle.manifest.vms.iter().flatten();
    let networks: Vec<_> = networks.map(|vm| vm.nets[0].network.as_str()).collect();
    assert_eq!(networks, ["lan", "lan"]);
}

#[test]
fn advice_is_never_to_do_what_was_just_done() {
    let folder = Folder::new("advice");
    let mut firmware = vec![0; 0x1000];
    firmware[0x28..0x2c].copy_from_slice(b"_FVH");
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("xz", b"\xfd7zXZ\0....".to_vec(), "with `unxz`"),
        ("lz4", b"\x04\x22\x4d\x18....".to_vec(), "with `lz4 -d`"),
        ("bz2", b"BZh9....".to_vec(), "with `bunzip2`"),
        ("lzo", b"\x89LZO....".to_vec(), "with `lzop -d`"),
        ("lzma", b"\x5d\0\0\x80\0....".to_vec(), "with `unlzma`"),
        ("boot", b"ANDROID!....".to_vec(), "with `unpack_bootimg"),
        ("fd", firmware, "is a UEFI firmware volume"),
        ("xz.gz", gzip(b"\xfd7zXZ\0...."), "with `unxz`"),
        ("gz.gz", gzip(&gzip(&image())), "with `gunzip`"),
        ("gz.zst", zstd(&gzip(&image())), "with `gunzip`"),
        ("zst.gz", gzip(&zstd(&image())), "with `unzstd`"),
        (
            "zboot-xz",
            zboot("xzkern", b"....size"),
            "`tail -c +513 FILE | head -c 4 | unxz`",
        ),
        (
            "zboot.gz",
            gzip(&zboot("gzip", &gzip(&image()))),
            "is packed twice: unpack it once",
        ),
    ];
    for (name, content, expected) in cases {
        let kernel = folder.write(name, &content);
        let error = pack_bytes(&one_vm(&kernel), &folder.0).expect_err(name);
        let message = format!("{error:#}");
        assert!(message.contains(expected), "{name}: {message}");
        assert!(!message.contains("xtask bundle"), "{name}: {message}");
    }
}
