"""What every package needs: errors, messages, reports, safe writing of files, command lines, progress, versions."""
