/* The few calls of MPI that ranks need, behind plain types: MPI's own are macros and differ between libraries. Each returns an MPI code. */
#include <mpi.h>

int ranks_mpi_start(int *rank, int *count)
{
    int provided = 0;
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_rank(MPI_COMM_WORLD, rank);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_size(MPI_COMM_WORLD, count);
    return code;
}

int ranks_mpi_swap(int peer, const void *out, int out_len, void *into, int into_len)
{
    return MPI_Sendrecv(out, out_len, MPI_BYTE, peer, 0, into, into_len, MPI_BYTE, peer, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

int ranks_mpi_end(void)
{
    return MPI_Finalize();
}

/* `text` holds at least 4096 bytes. */
void ranks_mpi_error(int code, char *text)
{
    char own[MPI_MAX_ERROR_STRING];
    int len = 0;
    MPI_Error_string(code, own, &len);
    if (len > 4095)
        len = 4095;
    for (int i = 0; i < len; i++)
        text[i] = own[i];
    text[len] = 0;
}
