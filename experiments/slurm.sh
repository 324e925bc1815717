#!/bin/bash
# A sweep as a SLURM array, without Ray: each task of the array runs one trial.
#
#   python -m experiments.sweep --sweep=FILE --dry-run        # numbers the trials
#   sbatch --array=0-5 experiments/slurm.sh --sweep=FILE      # here, six of them
#   python -m experiments.sweep --sweep=FILE --report         # once they have ended
#
# from the top of the checkout, with the virtual environment activated, in a directory
# that all nodes see. All three take the same options (--config, --config.FIELD=VALUE,
# --workdir). What a trial may use is for SLURM to say, as below or on sbatch's command
# line; --cpus and --gpus are Ray's. Submitted again, the array runs what is not done.
#
#SBATCH --job-name=o2ojax-sweep
#SBATCH --cpus-per-task=2
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
# For a GPU, add: #SBATCH --gres=gpu:1

# --requeue is for nodes that fail and for preemption: the trial goes on from its last
# checkpoint. --signal is for the time limit: so many seconds before it, the run is told
# to stop, saves, and exits with status 75. Then it is put back into the queue here, at
# most ten times. A program that crashes exits with another, and is not.
#
# A run of one process stops within seconds, and gives up what it was in the midst of; one
# of several processes after every log.every steps of all its members, and an evaluation
# that is due: where that takes longer than the seconds of --signal, give more of them.
# checkpoint.every should be reached several times within --time.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  python -m experiments.sweep "$@" --trial="${SLURM_ARRAY_TASK_ID:?sbatch --array=0-N}"
status=$?
if [ "$status" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 10 ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
