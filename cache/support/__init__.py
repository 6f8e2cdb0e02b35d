"""What every package needs: errors, whole files, command lines, progress, versions."""
