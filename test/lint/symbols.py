#!/usr/bin/env python3
"""What the built libraries show and what they take:

  symbols.py HEADER MAP LIBDIR

- the MMQ_API functions of HEADER, the names in MAP and the dynamic symbols that LIBDIR/libmmq.so
  defines are the same, and LIBDIR/libmmq.a has no other global symbol;
- the library calls nothing that prints, ends the process, reads the environment or changes it;
- it owns no writable data (thread-local buffers excepted), so that two copies can live side by side.

The same of LIBDIR/libmmq-cuda.so, where it is built, with cuda/libmmq-cuda.map in place of the
header: one function, nothing of libmmq, no libstdc++, no writable data but what nvcc makes to
register kernels: the handle of each file's machine code, and of each kernel once it was launched.
"""
import os
import re
import subprocess
import sys

FORBIDDEN = set(
    """abort exit _exit _Exit quick_exit atexit on_exit printf vprintf fprintf vfprintf dprintf
    vdprintf puts putchar putc fputs fputc fwrite perror psignal stdout stderr stdin getenv
    secure_getenv setenv putenv unsetenv clearenv environ setlocale signal sigaction raise kill
    pthread_kill sigprocmask pthread_sigmask alarm __assert_fail __assert __assert_perror_fail
    __printf_chk __fprintf_chk __vprintf_chk __vfprintf_chk __dprintf_chk err errx warn warnx verr
    vwarn error syslog system popen fork vfork execve execl execlp execv execvp posix_spawn atof sscanf scanf fscanf __isoc99_sscanf strtok rand srand random srandom
    localeconv chdir umask""".split()
)
DATA_SECTION = re.compile(r"^(\.data|\.bss|COMMON|\*COM\*)(\.(?!rel\.ro).*)?$")
# What the compiler's start files put there.
TOOLCHAIN = re.compile(r"^(__dso_handle|completed\.\d+|_edata|_end|__bss_start|__TMC_END__|\.(data|bss))$")
# What nvcc puts there; every launch finds the same in it.
NVCC = re.compile(r"__cudaFatCubinHandle|__device_stub__.*E(5__tmp|8__handle)$|^_ZZ?L\d+_*__nv_\w+")
NVCC_LIBRARIES = re.compile(r"^(libcublasLt|libcudart|libc|libm)\.so\.\d+$")
CUDA_MAP = "cuda/libmmq-cuda.map"


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def strip_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)


def header_functions(path):
    """Every function declared MMQ_API, in the order of the header."""
    with open(path, encoding="utf-8") as file:
        text = strip_comments(file.read())
    text = re.sub(r"^\s*#.*?(?<!\\)$", "", text, flags=re.M | re.S)
    return re.findall(r"\bMMQ_API\b[^;{]*?\b(\w+)\s*\(", text)


def map_functions(path):
    with open(path, encoding="utf-8") as file:
        text = strip_comments(file.read())
    names = []
    for block in re.findall(r"global:(.*?)(?:local:|\})", text, flags=re.S):
        names += re.findall(r"([\w*?]+)\s*;", block)
    return names


def defined_symbols(nm_output):
    """Names of symbols with an address; versions (@@MMQ_0) cut off, version names left out."""
    names = set()
    for line in nm_output.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] not in "UwA":
            names.add(fields[2].split("@")[0])
    return names


def undefined_symbols(nm_output):
    return {line.split()[-1].split("@")[0] for line in nm_output.splitlines() if line.strip()}


def writable_data(objdump_output):
    names = set()
    for line in objdump_output.splitlines():
        found = re.match(r"^[0-9a-f]+ .{7} (\S+)\s+[0-9a-f]+\s+(?:\.hidden )?(\S+)$", line)
        if found and DATA_SECTION.match(found[1]) and not TOOLCHAIN.match(found[2]):
            names.add(found[2])
    return names


def difference(what, found, wanted):
    faults = [f"{what}: {name} is not declared MMQ_API" for name in sorted(found - wanted)]
    return faults + [f"{what}: {name} is missing" for name in sorted(wanted - found)]


def check(header, version_map, libdir):
    shared = os.path.join(libdir, "libmmq.so")
    static = os.path.join(libdir, "libmmq.a")
    declared = header_functions(header)
    listed = map_functions(version_map)
    faults = [f"{header}: {name} is declared twice" for name in set(declared) if declared.count(name) > 1]
    faults += [f"{version_map}: {name} is listed twice" for name in set(listed) if listed.count(name) > 1]
    faults += difference(version_map, set(listed), set(declared))
    faults += difference(shared, defined_symbols(run("nm", "-D", shared)), set(declared))
    globals_ = defined_symbols(run("nm", "--extern-only", "--defined-only", static))
    faults += difference(static, globals_, set(declared))
    for name in sorted(undefined_symbols(run("nm", "-D", "--undefined-only", shared)) & FORBIDDEN):
        faults.append(f"{shared}: takes {name}, which the library may not")
    for name in sorted(writable_data(run("objdump", "-t", shared))):
        faults.append(f"{shared}: {name} is writable data that every user of the process shares")
    return faults


def check_cuda(libdir):
    shared = os.path.join(libdir, "libmmq-cuda.so")
    if not os.path.exists(shared):
        return []
    taken = undefined_symbols(run("nm", "-D", "--undefined-only", shared))
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", shared))
    faults = difference(shared, defined_symbols(run("nm", "-D", shared)), set(map_functions(CUDA_MAP)))
    faults += [f"{shared}: needs {name}" for name in needed if not NVCC_LIBRARIES.match(name)]
    for name in sorted(taken):
        if name in FORBIDDEN or name.startswith(("mmq_", "mmqi_")):
            faults.append(f"{shared}: takes {name}, which the library may not")
    for name in sorted(writable_data(run("objdump", "-t", shared))):
        if not NVCC.search(name):
            faults.append(f"{shared}: {name} is writable data that every user of the process shares")
    return faults


def main():
    faults = check(*sys.argv[1:4]) + check_cuda(sys.argv[3])
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
