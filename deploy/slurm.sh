#!/bin/bash
#SBATCH --job-name=peyk-sim
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=12:00:00
#SBATCH --output=peyk-sim-%A-%a.log
#
# One task of the array for each job of a plan; see deploy/README.md:
#
#   peyk sim jobs plans/slowdown-80.toml > jobs.jsonl
#   sbatch --array=0-$(($(wc -l < jobs.jsonl) - 1)) deploy/slurm.sh jobs.jsonl results
#   peyk sim merge results --html report.html
set -euo pipefail

if [ $# -ne 2 ] || [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
    echo "usage: sbatch --array=0-LAST $0 JOBS DIRECTORY" >&2
    exit 2
fi
exec "${PEYK:-peyk}" sim job "$1" --index "$SLURM_ARRAY_TASK_ID" --out "$2"
