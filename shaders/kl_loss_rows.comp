#version 450
#extension GL_GOOGLE_include_directive : require
#include "kl_loss.glsl"

ARGS(kl_loss_rows_args)
IN(1, student)
IN(2, teacher)
OUT(3, losses)

// A workgroup takes a row.
void main()
{
    uint row = GROUP;
    if (row >= p.rows)
        return;
    uint s_at = p.student_at + row * p.student_ld, t_at = p.teacher_at + row * p.teacher_ld;
    vec2 of_student, of_teacher;
    LOG_SUM_EXP(of_student, student, s_at, p.cols, p.scale)
    LOG_SUM_EXP(of_teacher, teacher, t_at, p.cols, p.scale)
    float sum = 0.0;
    for (uint c = LANE; c < p.cols; c += LANES)
        sum += divergence(pair_of(student.v[s_at + c], teacher.v[t_at + c], of_student,
                                  of_teacher, p.scale));
    sum = group_sum(sum);
    if (LANE == 0)
        losses.v[p.losses_at + row] = sum;
}
