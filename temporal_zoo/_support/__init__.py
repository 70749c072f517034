"""What temporal_zoo, diffusion and bench share.  Not a public API.

It imports no other part of the project but `errors`; `environment` also reads the compiler of `ops`.

    arithmetic     sets and records TF32 and the other arithmetic settings of torch
    control_group  memory limits of a container or a job
    environment    machine, software, code and settings of a measurement
    files          whole writes, JSON files, the cache folder
    html, markdown tables and pages
    options        options that several commands share
    packages       optional packages: imports, versions, install commands
    processes      child processes that end with their parent
    record         files of JSON lines with results and their environment
    signals        graceful stops, and their exit codes
    statistics     means and ratios with intervals
    stored_bytes   bytes that autograd stores for the backward pass
    submodules     packages in which every file is one entry of a list
    terminal       results, messages, tables and progress of commands
    units          numbers and sizes as short texts
"""
