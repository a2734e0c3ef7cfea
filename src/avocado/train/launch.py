"""Launch: the file that starts a recipe on other machines, by torchrun, Slurm or SkyPilot. Pure.

The recipe is the same everywhere; ``[compute]`` says on how many machines and devices it runs. The
file only starts ``avocado train`` once for each device: what is distributed, and how, is ``run``'s.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Final, Literal

from avocado.train.recipe import Compute, Recipe

Launcher = Literal["torchrun", "slurm", "skypilot"]

PORT: Final = 29500
"""Where the processes of several machines find each other: torchrun's own default."""

INSTALL: Final = "pip install 'avocado-llm[models]'"


@dataclass(frozen=True)
class LaunchFile:
    """A file to write as ``name``, and the ``command`` that starts it."""

    name: str
    text: str
    command: str


def launch_file(recipe: Recipe, path: str, launcher: Launcher) -> LaunchFile:
    """The launch file of the recipe at ``path`` (relative to the workspace, where it is started).

    A run that was interrupted goes on when it is started again: a spot machine asks nobody.
    """
    compute = recipe.compute or Compute()
    command = f"train {shlex.quote(path)} --auto-resume"
    make = {"torchrun": _torchrun, "slurm": _slurm, "skypilot": _skypilot}[launcher]
    return make(recipe.name, command, compute.nodes, compute.gpus)


def _torchrun(name: str, command: str, nodes: int, gpus: int) -> LaunchFile:
    file = f"{name}.torchrun.sh"
    if nodes == 1:
        where = "--standalone"
        said = f"bash {file}"
    else:
        where = (
            f'--nnodes {nodes} --node-rank "${{NODE_RANK:?number of this machine, from 0}}" '
            f'--master-addr "${{MASTER_ADDR:?address of machine 0}}" --master-port {PORT}'
        )
        said = f"MASTER_ADDR=… NODE_RANK=0 bash {file}   # on each machine, with its own number"
    text = (
        "#!/usr/bin/env bash\n"
        f"# Starts {name} on {nodes} machine(s) of {gpus} device(s). Run it in the workspace.\n"
        "set -euo pipefail\n"
        f"exec torchrun {where} --nproc-per-node {gpus} -m avocado {command}\n"
    )
    return LaunchFile(file, text, said)


def _slurm(name: str, command: str, nodes: int, gpus: int) -> LaunchFile:
    file = f"{name}.sbatch"
    start = shlex.quote(
        'exec torchrun --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" --master-addr '
        f'"$MASTER_ADDR" --master-port {PORT} --nproc-per-node {gpus} -m avocado {command}'
    )
    text = f"""#!/usr/bin/env bash
# Submit it in the workspace, which every node must see, with Avocado installed.
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --output={name}-%j.log
set -euo pipefail
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
# In quotes: SLURM_NODEID is each node's own, so it is read there, not here.
# shellcheck disable=SC2016
exec srun bash -c {start}
"""
    return LaunchFile(file, text, f"sbatch {file}")


def _skypilot(name: str, command: str, nodes: int, gpus: int) -> LaunchFile:
    file = f"{name}.sky.yaml"
    cloud = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    # Runs append to files and rename folders, which a bucket can do only behind a cache; and what
    # one machine has cached another does not see.
    kept = f"""# What must outlive a spot machine: runs and checkpoints.
file_mounts:
  /avocado:
    name: avocado-{cloud}
    mode: MOUNT_CACHED
"""
    if nodes > 1:
        kept = f"""# Runs and checkpoints: a file system that outlives the machines and all see.
# Make it first, with many writers (ReadWriteMany): sky volumes apply
volumes:
  /avocado: avocado-{cloud}
"""
    text = f"""# Change accelerators to what you want to rent. The workspace goes along.
name: {cloud}
num_nodes: {nodes}
resources:
  accelerators: H100:{gpus}
  use_spot: true
  job_recovery: failover
workdir: .
{kept}setup: |
  {INSTALL}
run: |
  mkdir -p /avocado/state && rm -rf .avocado && ln -s /avocado/state .avocado
  torchrun --nnodes "$SKYPILOT_NUM_NODES" --node-rank "$SKYPILOT_NODE_RANK" \\
    --master-addr "$(echo "$SKYPILOT_NODE_IPS" | head -n 1)" --master-port {PORT} \\
    --nproc-per-node "$SKYPILOT_NUM_GPUS_PER_NODE" -m avocado {command}
"""
    return LaunchFile(file, text, f"sky jobs launch {file}")
